"""The lock of a run: one process at a time works on it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import disk_error
from quoin.pipeline.storage.lease import hold_lease
from quoin.pipeline.storage.object_store import storage_url


@contextmanager
def lock_run(location: Path | str) -> Iterator[None]:
    """Hold the lock of the run at ``location``; QuoinError that names the process which holds it already."""
    url = storage_url(location)
    with hold_lease(url) if url else _lock_folder(Path(location)):
        yield


@contextmanager
def _lock_folder(run_path: Path) -> Iterator[None]:
    """Hold the run folder's lock; QuoinError where another process holds it.

    The lock is the kernel's (flock), so it goes with the process that held it, however that ended: none is ever stale.
    """
    path = run_path / "logs" / "lock"
    try:
        path.parent.mkdir(exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise disk_error(error, path) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise QuoinError(
                f"Another quoin works in this run folder ({holder})", where=run_path, hint="wait for it, or stop it"
            ) from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        yield
