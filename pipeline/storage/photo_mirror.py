"""Local copies of photos in object storage, since COLMAP and the decoders read files."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import atomic_path
from quoin.pipeline.storage.cache import storage_cache_folder
from quoin.pipeline.storage.object_store import Bucket, storage_url

MAX_DOWNLOADS = 8


def mirror_photos(source: str) -> Path:
    """The folder (or file) on this machine with what is at ``source``: a path as it is, a URL as a copy of today.

    Only what is new or has changed is fetched, and what is gone there goes here. Where nothing is at the URL, neither
    is anything at the path that is returned.
    """
    url = storage_url(source)
    if url is None:
        return Path(source)
    bucket, folder = Bucket(url), storage_cache_folder("photos", url)
    objects = {name: (n_bytes, modified) for name, n_bytes, modified in bucket.list_objects()}
    if not objects and url.count("/") > 2:  # one object, such as a clip, or nothing
        return _mirror_object(url, folder)
    if folder.is_dir():
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path.relative_to(folder).as_posix() not in objects:
                path.unlink()
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
