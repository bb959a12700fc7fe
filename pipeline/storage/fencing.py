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

CLAIM = "attempt"


class Superseded(QuoinError):
    """A later attempt has taken this work over."""


@dataclass(frozen=True)
class Attempt:
    """What a job's work is told of the try that it is.

    ``smaller``: how many times over to take less memory than planned, for ``why_smaller``.
    """

    id: str = ""  # "": nobody else can be at it, as in a notebook
    smaller: int = 0
    why_smaller: str = ""

    def check(self, folder: Path) -> None:
        """Superseded where another attempt has claimed ``folder`` since; to be asked right before writing."""
        path = folder / CLAIM
        if self.id and path.read_text(encoding="ascii") != self.id:
            raise Superseded("A later attempt has taken this block over", where=folder)


def claim(folder: Path, attempt_id: str) -> None:
    """From here on only ``attempt_id`` may write what belongs to ``folder``. For the driver."""
    write_atomic(folder / CLAIM, attempt_id.encode("ascii"))
