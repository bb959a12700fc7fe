"""Photos that lie in object storage, on this machine: COLMAP and the decoders read files."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import aside
from quoin.pipeline.storage.cache import cache_folder
from quoin.pipeline.storage.object_store import Bucket, url_of

AT_ONCE = 8


def mirror(source: str) -> Path:
    """The folder (or file) on this machine with what is at ``source``: a path as it is, a URL as a copy of today.

    Only what is new or has changed is fetched, and what is gone there goes here. Where nothing is at the URL, neither
    is anything at the path that is returned.
    """
    url = url_of(source)
    if url is None:
        return Path(source)
    bucket, folder = Bucket(url), cache_folder("photos", url)
    there = {name: (n_bytes, modified) for name, n_bytes, modified in bucket.names()}
    if not there and url.count("/") > 2:  # one object, such as a clip, or nothing
        return _file(url, folder)
    if folder.is_dir():
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path.relative_to(folder).as_posix() not in there:
                path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(name, *facts) for name, facts in there.items() if not _same(_inside(folder, name), *facts)]
    _check_room(folder, sum(n_bytes for _, n_bytes, _ in wanted))

    def fetch(one: tuple[str, int, datetime]) -> None:
        name, _, modified = one
        _fetch(bucket, name, _inside(folder, name), modified)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
        list(pool.map(fetch, wanted))
    return folder


def mirror_file(source: str, name: str) -> Path:
    """The file ``name`` of what is at ``source``, on this machine, without the others."""
    url = url_of(source)
    if url is None:
        return Path(source) / name
    bucket, path = Bucket(url), _inside(cache_folder("photos", url), name)
    found = bucket.facts(name)
    if found is not None and not _same(path, *found):
        _fetch(bucket, name, path, found[1])
    return path


def _file(url: str, folder: Path) -> Path:
    above, _, name = url.rpartition("/")
    path = folder / name
    bucket = Bucket(above)
    found = bucket.facts(name)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
    elif not _same(path, *found):
        _check_room(folder, found[0])
        _fetch(bucket, name, path, found[1])
    return path


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if ".." in Path(name).parts:
        raise QuoinError("This name leads out of its folder", where=name, do="rename the object")
    return path


def _same(path: Path, n_bytes: int, modified: datetime) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == n_bytes and abs(status.st_mtime - modified.timestamp()) < 1e-3


def _fetch(bucket: Bucket, name: str, path: Path, modified: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        if bucket.fetch(name, part) is not None:
            os.utime(part, (modified.timestamp(), modified.timestamp()))


def _check_room(folder: Path, n_bytes: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if n_bytes > shutil.disk_usage(there).free:
        raise QuoinError(
            f"The photos take {n_bytes / 1e9:.1f} GB, more than there is room for",
            where=folder,
            do="free some space, or set QUOIN_HOME to a folder on a larger disk",
        )
