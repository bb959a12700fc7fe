"""Folders of this machine below QUOIN_HOME: a disk cache of runs in object storage, copies of photos, locks, scratch.

All of it may be deleted. Cached are only objects that never change under their name, since the name holds the commit
they are of. Copies of photos are files, since COLMAP and the decoders read files.
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
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.disk import atomic_path, open_lock_file
from quoin.pipeline.storage.layout import PARTIAL_PATTERN
from quoin.pipeline.storage.object_store import Bucket, storage_url

DEFAULT_LIMIT_GIB = 20.0  # unless QUOIN_CACHE_GIB says otherwise
EVICTION_TARGET = 0.9  # of the limit, once it is passed
MAX_DOWNLOADS = 8
ABANDONED_PART_SECONDS = 3600.0  # since a part of a file was last written to, after which its process is gone


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
    with open_lock_file(path.with_name(f"{path.name}.lock")) as handle:
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


# -- copies of photos --------------------------------------------------------------------------------------------------


def mirror_photos(source: str) -> Path:
    """The folder (or file) on this machine with what is at ``source``: a path as it is, a URL as a copy of today.

    Only what is new or has changed is fetched, and what is gone there goes here. Where nothing is at the URL, neither
    is anything at the path that is returned. Processes of this machine that ask at once take turns.
    """
    url = storage_url(source)
    if url is None:
        return Path(source)
    folder = storage_cache_folder("photos", url)
    with file_lock(folder):
        return _mirror_objects(url, folder)


def _mirror_objects(url: str, folder: Path) -> Path:
    bucket = Bucket(url)
    objects = {name: (n_bytes, modified) for name, n_bytes, modified in bucket.list_objects()}
    if not objects and url.count("/") > 2:  # one object, such as a clip, or nothing
        return _mirror_object(url, folder)
    if folder.is_dir():
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path.relative_to(folder).as_posix() not in objects and not _is_being_written(path):
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    outdated = [
        (name, *facts) for name, facts in objects.items() if not _is_current(_checked_path(folder, name), *facts)
    ]
    _check_free_space(folder, sum(n_bytes for _, n_bytes, _ in outdated))

    def fetch(item: tuple[str, int, datetime]) -> None:
        name, _, modified = item
        _download(bucket, name, _checked_path(folder, name), modified)

    with ThreadPoolExecutor(MAX_DOWNLOADS, thread_name_prefix="fetch") as pool:
        list(pool.map(fetch, outdated))
    return folder


def mirror_file(source: str, name: str) -> Path:
    """Path on this machine of the file ``name`` below ``source``; no others are downloaded."""
    url = storage_url(source)
    if url is None:
        return Path(source) / name
    bucket, path = Bucket(url), _checked_path(storage_cache_folder("photos", url), name)
    remote = bucket.head(name)
    if remote is not None and not _is_current(path, *remote):
        _download(bucket, name, path, remote[1])
    return path


def _mirror_object(url: str, folder: Path) -> Path:
    above, _, name = url.rpartition("/")
    path = folder / name
    bucket = Bucket(above)
    remote = bucket.head(name)
    if remote is None:
        shutil.rmtree(folder, ignore_errors=True)
    elif not _is_current(path, *remote):
        _check_free_space(folder, remote[0])
        _download(bucket, name, path, remote[1])
    return path


def _is_being_written(path: Path) -> bool:
    """Whether another process may be downloading into this file: a part that was written to lately."""
    try:
        return path.match(PARTIAL_PATTERN) and time.time() - path.stat().st_mtime < ABANDONED_PART_SECONDS
    except FileNotFoundError:
        return False


def _checked_path(folder: Path, name: str) -> Path:
    path = folder / name
    if ".." in Path(name).parts:
        raise QuoinError("An object's name contains '..'", where=name, hint="rename the object")
    return path


def _is_current(path: Path, n_bytes: int, modified: datetime) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == n_bytes and abs(status.st_mtime - modified.timestamp()) < 1e-3


def _download(bucket: Bucket, name: str, path: Path, modified: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        if bucket.download(name, part) is not None:
            os.utime(part, (modified.timestamp(), modified.timestamp()))


def _check_free_space(folder: Path, n_bytes: int) -> None:
    objects = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if n_bytes > shutil.disk_usage(objects).free:
        raise QuoinError(
            f"The photos take {n_bytes / 1e9:.1f} GB, more than there is room for",
            where=folder,
            hint="free some space, or set QUOIN_HOME to a folder on a larger disk",
        )
