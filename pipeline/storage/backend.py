"""Where a run lives: in a folder, or at a URL with a working folder on this machine.

Every process writes files into its working folder. In a folder that is all. At a URL, whoever did the work *hands in*
the files that a stage leaves (puts them, and then a receipt of them), and whoever commits writes the receipt into the
manifest: so the put of run.json stays the only one that counts, and readers anywhere know which bytes they must get.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarr

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.atomic import atomic_path, disk_error, write_atomic
from quoin.pipeline.storage.cache import DiskCache, file_lock, scratch_folder, storage_cache_folder
from quoin.pipeline.storage.layout import SIDECARS, FileEntry, matching_files, output_patterns, sha256_of
from quoin.pipeline.storage.object_store import Bucket, storage_url

RUN_FILE = "run.json"
SCENE_STORE = "scene.zarr"
MAX_UPLOADS = 8  # files on the way


class LocalStorage:
    """The place where a run lives: here a folder, in which every process writes as well.

    ``location`` is for people and for other processes; ``folder`` is where this process writes files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.location = folder, str(folder)

    def read_record(self) -> bytes | None:
        """run.json, or None where there is no run."""
        try:
            return (self.folder / RUN_FILE).read_bytes()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return None
            raise QuoinError(
                f"run.json cannot be read: {error}", where=self.folder, hint="restore it or start anew"
            ) from None

    def write_record(self, data: bytes) -> None:
        """Put run.json: the commit."""
        write_atomic(self.folder / RUN_FILE, data)

    def create(self) -> None:
        """Make room for a new run; QuoinError where something else is there."""
        folder = self.folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise QuoinError(
                "The output folder is not empty and holds no run", where=folder, hint="choose another --out"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error

    def prepare_folder(self, run_id: str) -> None:
        """Have a working folder for this run, and nothing of another one in it."""
        del run_id

    def open_scene(self, commit: Callable[[], str | None]) -> zarr.Group:
        """scene.zarr; ``commit()`` names the commit that its photos are of."""
        del commit
        return arrays.open_local_group(self.folder / SCENE_STORE)

    def upload_outputs(self, stage: str) -> None:
        """Put what ``stage`` left in the working folder."""
        del stage

    def upload_manifest(self, stage: str) -> dict[str, FileEntry]:
        """What was handed in of ``stage``."""
        del stage
        return {}

    def file(self, name: str, entry: FileEntry | None, commit: str) -> Path:
        """A file of the run to be read: as ``commit`` left it where that names it, else as it is here."""
        del entry, commit
        return self.folder / name

    def upload(self, name: str, backup_name: str | None) -> None:
        """Put a working file now, for another machine to go on with; what was there is kept as ``before``."""
        del name, backup_name

    def download(self, name: str) -> None:
        """Have a shared working file here as it is at home; where there is none, there is none here."""
        del name

    def download_if_stale(self, name: str) -> None:
        """Have a working file that only grows here as it is at home, unless more of it is here."""
        del name

    @contextlib.contextmanager
    def open_for_upload(self, name: str) -> Iterator[Path]:
        """A path to write to: what was written there is a working file at home, whole, and nowhere else."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            yield part

    @contextlib.contextmanager
    def open_downloaded(self, name: str) -> Iterator[Path]:
        """A working file as it is at home, to be read; it may not exist."""
        yield self.folder / name

    def remove(self, name: str) -> None:
        """Remove a working file or folder, here and at home."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def upload_sidecars(self, since: float) -> None:
        """Put what commands beside the stages have written since then (seconds since the epoch)."""
        del since


class ObjectStorage(LocalStorage):
    """A run in object storage. What is read of it is kept in the cache of this machine."""

    def __init__(self, url: str) -> None:
        super().__init__(storage_cache_folder("runs", url))
        self.location = url
        self.bucket = Bucket(url)
        self.cache = DiskCache(storage_cache_folder("objects", url).parent)
        self._cached = storage_cache_folder("objects", url).name
        self._etag: str | None = None  # of run.json as this process last saw it

    def read_record(self) -> bytes | None:
        found = self.bucket.get(RUN_FILE)
        self._etag = None if found is None else found.etag
        return None if found is None else found.data

    def write_record(self, data: bytes) -> None:
        etag = self.bucket.put_if_match(RUN_FILE, data, self._etag)
        if etag is None:
            raise QuoinError(
                "Another quoin has changed this run meanwhile, so this one stops",
                where=self.location,
                hint="wait for it, or stop it and run quoin resume",
            )
        self._etag = etag

    def create(self) -> None:
        if not self.bucket.is_empty():
            raise QuoinError(
                "There is something here, and it is no run", where=self.location, hint="choose another --out"
            )

    def prepare_folder(self, run_id: str) -> None:
        run_id_file = self.folder / "run-id"
        try:
            with file_lock(self.folder):  # workers of one machine come at the same time
                if run_id_file.exists() and run_id_file.read_text(encoding="ascii") == run_id:
                    return
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                self.folder.mkdir()
                write_atomic(run_id_file, run_id.encode())
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def open_scene(self, commit: Callable[[], str | None]) -> zarr.Group:
        from quoin.pipeline.storage.remote_arrays import open_remote_scene

        def named() -> str | None:
            return None if (name := commit()) is None else f"{self._cached}/{name}"

        return open_remote_scene(f"{self.location}/{SCENE_STORE}", self.cache, named)

    def upload_outputs(self, stage: str) -> None:
        globs = output_patterns(stage)
        if not globs:
            return
        previous, names = self.upload_manifest(stage), list(matching_files(self.folder, globs))
        entries = dict(zip(names, self._put(names), strict=True))
        for removed in sorted(previous.keys() - entries.keys()):
            self.bucket.remove(removed)
        upload_manifest = {name: entry.model_dump() for name, entry in entries.items()}
        self.bucket.put(_upload_manifest_name(stage), json.dumps(upload_manifest, indent=1).encode())

    def upload_manifest(self, stage: str) -> dict[str, FileEntry]:
        if not output_patterns(stage):
            return {}
        data = self.bucket.read(_upload_manifest_name(stage))
        return (
            {} if data is None else {name: FileEntry.model_validate(entry) for name, entry in json.loads(data).items()}
        )

    def file(self, name: str, entry: FileEntry | None, commit: str) -> Path:
        local_path = self.folder / name
        if entry is None or (local_path.is_file() and sha256_of(local_path) == entry.sha256):
            return local_path

        def fetch(path: Path) -> None:
            found = self.bucket.download(name, path)
            if found != entry.sha256:
                raise QuoinError(
                    f"This file is {'gone' if found is None else 'not the one that was committed'}",
                    where=f"{self.location}/{name}",
                    hint="redo its stage with quoin resume --force",
                )

        return self.cache.file(f"{self._cached}/{commit}/{name}", fetch)

    def upload(self, name: str, backup_name: str | None) -> None:
        if backup_name is not None:
            self.bucket.copy(name, backup_name)
        self.bucket.upload_file(name, self.folder / name)

    def download(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            if self.bucket.download(name, part) is None:
                path.unlink(missing_ok=True)

    def download_if_stale(self, name: str) -> None:
        local_path, remote = self.folder / name, self.bucket.head(name)
        if remote is not None and remote[0] > (local_path.stat().st_size if local_path.exists() else 0):
            self.download(name)

    @contextlib.contextmanager
    def open_for_upload(self, name: str) -> Iterator[Path]:
        with self._temporary_file(name) as path:
            yield path
            self.bucket.upload_file(name, path)

    @contextlib.contextmanager
    def open_downloaded(self, name: str) -> Iterator[Path]:
        with self._temporary_file(name) as path:
            self.bucket.download(name, path)
            yield path

    @contextlib.contextmanager
    def _temporary_file(self, name: str) -> Iterator[Path]:
        """A file here that nobody else has, for as long as it is on its way."""
        with scratch_folder(self.folder) as folder:
            yield folder / name.rpartition("/")[2]

    def remove(self, name: str) -> None:
        super().remove(name)
        self.bucket.remove(name)

    def upload_sidecars(self, since: float) -> None:
        names = []
        for name in matching_files(self.folder, SIDECARS):
            with contextlib.suppress(FileNotFoundError):
                if (self.folder / name).stat().st_mtime >= since:
                    names.append(name)
        self._put(names)

    def _put(self, names: Iterable[str]) -> list[FileEntry]:
        def one(name: str) -> FileEntry:
            path = self.folder / name
            entry = FileEntry(sha256=sha256_of(path), n_bytes=path.stat().st_size)
            self.bucket.upload_file(name, path)
            return entry

        with ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="put") as pool:
            return list(pool.map(one, names))


def open_storage(location: str | Path) -> LocalStorage:
    """The home at a path or a URL."""
    url = storage_url(location)
    return LocalStorage(Path(location).absolute()) if url is None else ObjectStorage(url)


def _upload_manifest_name(stage: str) -> str:
    return f"work/handed_in/{stage}.json"
