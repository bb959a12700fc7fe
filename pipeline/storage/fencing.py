"""One try at a job, and the fence that keeps an earlier try from writing over the work of a later one.

A machine that the driver has lost may work on for a while: what it writes then must not meet what its successor writes.
The driver claims the job's folder for every attempt before that starts; whoever is about to write checks that the claim
is still its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import write_atomic

FENCING_TOKEN_FILE = "fencing_token"  # noqa: S105  (a file name)


class SupersededError(QuoinError):
    """A later attempt has taken this work over."""


@dataclass(frozen=True)
class Attempt:
    """What a job's work is told of the try that it is.

    ``memory_level``: how many times over to take less memory than planned, for ``memory_reason``.
    """

    id: str = ""  # "": nobody else can be at it, as in a notebook
    memory_level: int = 0
    memory_reason: str = ""

    def check(self, folder: Path) -> None:
        """Superseded where another attempt has claimed ``folder`` since; to be asked right before writing."""
        path = folder / FENCING_TOKEN_FILE
        if self.id and path.read_text(encoding="ascii") != self.id:
            raise SupersededError("A later attempt has taken this block over", where=folder)


def fence(folder: Path, attempt_id: str) -> None:
    """From here on only ``attempt_id`` may write what belongs to ``folder``. For the driver."""
    write_atomic(folder / FENCING_TOKEN_FILE, attempt_id.encode("ascii"))
