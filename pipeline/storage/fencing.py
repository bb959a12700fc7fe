"""Fencing: an earlier attempt at a task cannot write over the work of a later one.

A worker that the driver has lost may run on, and must not write then. Before every attempt the driver writes
its id into the task's folder (the fencing token); before writing, a worker checks that the token is its own.
"""

from __future__ import annotations

from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import write_atomic

FENCING_TOKEN_FILE = "fencing_token"  # noqa: S105  (a file name)


class SupersededError(QuoinError):
    """A later attempt has taken this task over."""


def fence(folder: Path, attempt_id: str) -> None:
    """Write the fencing token of ``folder``: from here on only this attempt may write there. For the driver."""
    write_atomic(folder / FENCING_TOKEN_FILE, attempt_id.encode("ascii"))


def check_fence(folder: Path, attempt_id: str) -> None:
    """Raise SupersededError where a later attempt has taken ``folder`` over; to be called right before writing.

    An attempt without id ("") is never superseded.
    """
    if attempt_id and (folder / FENCING_TOKEN_FILE).read_text(encoding="ascii") != attempt_id:
        raise SupersededError("A later attempt has taken this block over", where=folder)
