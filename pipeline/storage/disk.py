"""Writes to disks and shares, atomic and durable: a reader sees the old or the new content, also after a power cut.

Writing does not bring anything to the disk: a power cut may leave a new file of a few seconds ago empty, and a folder
without it. ``sync_filesystem`` does, before a commit says that it is there.

Errors of disks become QuoinErrors. Where a disk does not respond (a share whose server restarts, a network that is down
for a minute), calls are tried again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from quoin.pipeline.core import cancellation
from quoin.pipeline.core.errors import QuoinError

# errno of an OSError that a folder or a disk is the cause of
UNWRITABLE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}

MAX_RETRY_SECONDS = 120.0
INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 15.0
_NAMES = (
    "EIO ESTALE EAGAIN EREMOTEIO ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENOTCONN "
    "ECONNRESET ECONNREFUSED ECONNABORTED"
)
TRANSIENT_ERRNOS = {
    getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)
}  # not every system has them all


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
    """Write a file atomically, and through to the disk, with its name in the folder."""
    try:
        with atomic_path(path) as part, open(part, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        _call_on_folder(path.parent, os.fsync)
    except OSError as error:
        raise disk_error(error, path) from error


def open_lock_file(path: Path) -> TextIO:
    """A file for a lock, made where absent and not emptied; QuoinError where it is a link or cannot be written."""
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise (_link_error(path) if error.errno == errno.ELOOP else disk_error(error, path)) from error


def refuse_links(folder: Path, allowed: Collection[Path] = ()) -> None:
    """QuoinError where there is a symbolic link in ``folder``, however deep, but directly in the ``allowed`` folders.

    What is written to a link lands elsewhere, and what is read may be of any file of the user.
    """
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:  # another process works there
        return
    with entries:
        for entry in entries:
            if entry.is_symlink() and folder not in allowed:
                raise _link_error(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                refuse_links(Path(entry.path), allowed)


def _link_error(path: Path) -> QuoinError:
    hint = "remove it, or put what it points at in its place"
    return QuoinError("There is a link in this run folder, and quoin follows none there", where=path, hint=hint)


def sync_filesystem(folder: Path) -> None:
    """Bring all that was written to the file system of ``folder`` to the disk: files, folders and their names.

    syncfs(2) where there is one, which also reports what the disk refused; else sync(2), of all file systems.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)

    def sync(descriptor: int) -> None:
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    try:
        _call_on_folder(folder, sync)
    except OSError as error:
        raise disk_error(error, folder) from error


def _call_on_folder(folder: Path, call: Callable[[int], None]) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError, where: object) -> QuoinError:
    """The QuoinError that says what an OSError while writing means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuoinError("The disk is full", where=where, hint="free some space, then run quoin resume")
    return QuoinError(f"Cannot write: {error.strerror or error}", where=where, hint="choose a folder you may write to")


Returned = TypeVar("Returned")


# -- retries -----------------------------------------------------------------------------------------------------------


def is_transient(error: BaseException | None, folder: Path) -> bool:
    """Whether ``error``, or its cause, is transient: the storage does not respond, or all of ``folder`` is missing."""
    while error is not None:
        if isinstance(error, OSError):
            return isinstance(error, TimeoutError) or error.errno in TRANSIENT_ERRNOS or not os.path.exists(folder)
        error = error.__cause__
    return False


def retry(
    function: Callable[[], Returned],
    folder: Path,
    log: Callable[[str], None],
    *,
    timeout_s: float = MAX_RETRY_SECONDS,
) -> Returned:
    """The result of ``function()``, which works in ``folder``, retried while the storage does not respond.

    Pauses double, from one second to a quarter of a minute. After ``timeout_s`` the last error is raised.
    """
    waited_s, pause_s = 0.0, INITIAL_BACKOFF_SECONDS
    while True:
        began = time.monotonic()
        try:
            return function()
        except Exception as error:
            if time.monotonic() - began > timeout_s:  # it answered for long: this is another time
                waited_s, pause_s = 0.0, INITIAL_BACKOFF_SECONDS
            if not is_transient(error, folder) or waited_s + pause_s > timeout_s:
                raise
            log(f"the storage does not respond: trying again in {pause_s:.0f} s ({error})")
        resume_at = time.monotonic() + pause_s
        while time.monotonic() < resume_at:
            cancellation.check()
            time.sleep(0.05)
        waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, MAX_BACKOFF_SECONDS)
