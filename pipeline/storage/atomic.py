"""Atomic writes: a reader sees a file's old or new content, never half of the new one."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError

# errno of an OSError that a folder or a disk is the cause of
UNWRITABLE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it replaces ``path`` in one move unless the block raises."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield part
        if part.exists():
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically, and through to the disk."""
    try:
        with atomic_path(path) as part, open(part, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, where: object) -> QuoinError:
    """The QuoinError that says what an OSError while writing means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuoinError("The disk is full", where=where, hint="free some space, then run quoin resume")
    return QuoinError(f"Cannot write: {error.strerror or error}", where=where, hint="choose a folder you may write to")
