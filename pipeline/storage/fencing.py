"""Fencing: an earlier attempt at a job cannot write over the work of a later one.

A worker that the driver has lost may run on, and must not write then. Before every attempt the driver writes
its id into the job's folder (the fencing token); before writing, a worker checks that the token is its own.
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
    """One attempt at a job.

    ``memory_level``: how many times over to take less memory than planned, for ``memory_reason``.
    """

    id: str = ""  # "": no other attempt is possible, as in a notebook
    memory_level: int = 0
    memory_reason: str = ""

    def check(self, folder: Path) -> None:
        """Raise SupersededError where ``folder`` holds another attempt's token; call it right before writing."""
        path = folder / FENCING_TOKEN_FILE
        if self.id and path.read_text(encoding="ascii") != self.id:
            raise SupersededError("A later attempt has taken this block over", where=folder)


def fence(folder: Path, attempt_id: str) -> None:
    """Write the fencing token of ``folder``: from here on only this attempt may write there. For the driver."""
    write_atomic(folder / FENCING_TOKEN_FILE, attempt_id.encode("ascii"))
