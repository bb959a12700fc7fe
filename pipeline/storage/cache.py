"""Disk cache of this machine for runs and photos in object storage, below QUOIN_HOME/cache; all of it may be deleted.

Cached are only objects that never change under their name, since the name holds the commit they are of.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import atomic_path

DEFAULT_LIMIT_GIB = 20.0  # unless QUOIN_CACHE_GIB says otherwise
EVICTION_TARGET = 0.9  # of the limit, once it is passed


def home_folder() -> Path:
    """The folder for files that belong to no run: QUOIN_HOME, or ~/.quoin."""
    return Path(os.environ.get("QUOIN_HOME") or Path.home() / ".quoin")


def storage_cache_folder(kind: str, url: str) -> Path:
    """The cache folder for ``url``, named by its last part and a hash of it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", url.rpartition("/")[2]) or "run"
    return home_folder() / "cache" / kind / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes of this machine, by a file beside ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in ``parent``; those that killed processes of this machine left there are removed first."""
    prefix = f"quoin-{socket.gethostname()}"
    for stale in parent.glob(f"{glob.escape(prefix)}-*-*"):
        owner, pid, _ = stale.name.rsplit("-", 2)
        if owner == prefix and pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}-{os.getpid()}-", dir=parent) as folder:
        yield Path(folder)


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def cache_limit_bytes() -> int:
    """Largest size of the cached objects together (QUOIN_CACHE_GIB)."""
    value_text = os.environ.get("QUOIN_CACHE_GIB", "")
    try:
        value = float(value_text) if value_text else DEFAULT_LIMIT_GIB
    except ValueError:
        raise QuoinError(
            "The cache size is not a number of GiB", where=f"QUOIN_CACHE_GIB={value_text}", hint="write a number"
        ) from None
    return int(value * 2**30)


class DiskCache:
    """Cached objects on this machine's disk, up to a total size; the least recently used go first.

    Processes share it: files appear whole, and one that is gone is fetched again.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self.limit = folder, cache_limit_bytes() if limit is None else limit
        self._added = self.limit  # so that the first addition looks at what there is
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        """The cached content of ``name``, or None."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Cache ``data`` as ``name``; a disk that is full is no error."""
        with contextlib.suppress(OSError):
            self._add(name, lambda part: part.write_bytes(data))

    def file(self, name: str, fetch: Callable[[Path], object]) -> Path:
        """Path of the cached file ``name``; ``fetch(path)`` writes it where it is absent."""
        path = self.folder / name
        if path.exists():
            with contextlib.suppress(OSError):
                os.utime(path)
        else:
            self._add(name, fetch)
        return path

    def _add(self, name: str, write: Callable[[Path], object]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            write(part)
            n_bytes = part.stat().st_size
        with self._lock:
            self._added += n_bytes
            if self._added > self.limit // 10:
                self._added = 0
                self._evict(path)

    def _evict(self, keep: Path) -> None:
        cached_files = []
        for folder, _, files in os.walk(self.folder):
            for file in files:
                with contextlib.suppress(OSError):
                    status = os.stat(os.path.join(folder, file))
                    cached_files.append((status.st_mtime, status.st_size, os.path.join(folder, file)))
        total = sum(size for _, size, _ in cached_files)
        if total <= self.limit:
            return
        for _, size, file in sorted(cached_files):
            if total <= EVICTION_TARGET * self.limit:
                break
            if file != str(keep):
                with contextlib.suppress(OSError):
                    os.unlink(file)
                total -= size
