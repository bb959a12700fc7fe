"""Where a run's files are stored: in a folder, or in object storage with a working folder on this machine.

Every process writes files into its working folder. For a run in a folder that is all. For a run in object storage the
process that did a stage's work uploads the files that the stage leaves, then an upload manifest that lists them; the
driver copies that list into the stage's manifest when it commits. So the put of run.json is the only commit, and
readers anywhere know the hash of every file they download.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydantic
import zarr

from quoin.pipeline.core.errors import QuoinError, first_line
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.cache import DiskCache, file_lock, scratch_folder, storage_cache_folder
from quoin.pipeline.storage.disk import atomic_path, disk_error, refuse_links, sync_filesystem, write_atomic
from quoin.pipeline.storage.layout import (
    COLMAP_IMAGES,
    SIDECARS,
    FileEntry,
    damaged_file_error,
    matching_files,
    output_patterns,
    sha256_of,
)
from quoin.pipeline.storage.object_store import Bucket, storage_url

RUN_FILE = "run.json"
SCENE_STORE = "scene.zarr"
MAX_UPLOADS = 8  # files on the way
UPLOAD_MANIFEST = pydantic.TypeAdapter(dict[str, FileEntry])


class LocalStorage:
    """A run stored in a folder, in which every process writes as well.

    ``location``: that folder, or a URL, for people and other processes; ``folder``: where this process writes files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.location = folder, str(folder)
        self._record: bytes | None = None  # run.json as this process last saw it

    # -- the run itself ----------------------------------------------------------------------------------------------

    def read_record(self) -> bytes | None:
        """The content of run.json, or None where there is no run."""
        self._record = self._read_record()
        return self._record

    def _read_record(self) -> bytes | None:
        try:
            return (self.folder / RUN_FILE).read_bytes()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return None
            raise QuoinError(
                f"run.json cannot be read: {error}", where=self.folder, hint="restore it or start a new run"
            ) from None

    def write_record(self, data: bytes) -> None:
        """Replace run.json in one step: this is the commit. QuoinError where another process has written it since."""
        with file_lock(self.folder / f".{RUN_FILE}"):
            if self._read_record() != self._record:
                raise _changed_by_another_error(self.location)
            write_atomic(self.folder / RUN_FILE, data)
        self._record = data

    def sync(self) -> None:
        """Bring all files that this process or another of this machine wrote into the folder to the disk."""
        sync_filesystem(self.folder)

    def prepare(self, run_id: str, *, is_new: bool = False) -> None:
        """Make the working folder ready for the run; QuoinError where it ``is_new`` and the place is not empty."""
        del run_id
        if not is_new:
            return
        folder = self.folder
        if folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir())):
            raise _not_empty_error(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error

    def refuse_links(self) -> None:
        """QuoinError where there is a link in the run folder, but those to photos that pose gives COLMAP."""
        if self.folder.is_dir():
            refuse_links(self.folder, [self.folder / COLMAP_IMAGES])

    def open_scene(self, commit_name: Callable[[], str | None]) -> zarr.Group:
        """The group scene.zarr; ``commit_name()`` names the commit that its photos belong to."""
        del commit_name
        return arrays.open_local_group(self.folder / SCENE_STORE)

    # -- files that a stage leaves -----------------------------------------------------------------------------------

    def upload_outputs(self, stage: str) -> None:
        """Upload the files that ``stage`` left in the working folder, and the list of them; before it is committed."""
        del stage

    def read_upload_manifest(self, stage: str) -> dict[str, FileEntry]:
        """The files of ``stage`` that were uploaded, by name; empty in a folder."""
        del stage
        return {}

    def committed_file(self, name: str, entry: FileEntry | None, commit_name: str) -> Path:
        """Path on this machine of a file as it was committed, or as it is here where no commit lists it (no entry)."""
        del entry, commit_name
        return self.folder / name

    def upload_sidecars(self, since: float) -> None:
        """Upload what commands beside the stages have written (logs, an evaluation) since then, in epoch seconds."""
        del since

    # -- working files, for other machines to continue from ----------------------------------------------------------

    def upload(self, name: str, *, backup_name: str | None = None) -> None:
        """Upload a working file now; the stored version before it is kept under ``backup_name``."""
        del name, backup_name

    def download(self, name: str, *, keep_longer: bool = False) -> Path:
        """Path of a working file, brought up to date with the stored one; it does not exist where none is stored.

        With ``keep_longer``, for files that only grow, a file here that is at least as long as the stored one stays.
        """
        del keep_longer
        return self.folder / name

    @contextlib.contextmanager
    def open_for_upload(self, name: str) -> Iterator[Path]:
        """A temporary path to write to; after the block its content is the stored working file, if all went well."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            yield part

    @contextlib.contextmanager
    def open_downloaded(self, name: str) -> Iterator[Path]:
        """A path to read a stored working file from, inside the block; it may not exist."""
        yield self.folder / name

    def remove(self, name: str) -> None:
        """Remove a working file or folder, here and where it is stored."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove all of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def public_path(self, path: Path | str) -> str:
        """The location that a person finds a file under: below the run's URL where its working folder holds it."""
        full_path = self.folder / path
        if not full_path.is_relative_to(self.folder):
            return str(path)
        return f"{self.location}/{full_path.relative_to(self.folder).as_posix()}"


class ObjectStorage(LocalStorage):
    """A run in object storage. What is read of it is kept in the cache of this machine."""

    def __init__(self, url: str) -> None:
        super().__init__(storage_cache_folder("runs", url))
        self.location = url
        self.bucket = Bucket(url)
        self.cache = DiskCache(storage_cache_folder("objects", url).parent)
        self._cache_key = storage_cache_folder("objects", url).name
        self._etag: str | None = None  # of run.json as this process last saw it

    def read_record(self) -> bytes | None:
        found = self.bucket.get(RUN_FILE)
        self._etag = None if found is None else found.etag
        return None if found is None else found.data

    def sync(self) -> None:
        """Nothing: what was put is stored."""

    def write_record(self, data: bytes) -> None:
        etag = self.bucket.put_if_match(RUN_FILE, data, self._etag)
        if etag is None:
            raise _changed_by_another_error(self.location)
        self._etag = etag

    def prepare(self, run_id: str, *, is_new: bool = False) -> None:
        if is_new and not self.bucket.is_empty():
            raise _not_empty_error(self.location)
        run_id_file = self.folder / "run-id"
        try:
            with file_lock(self.folder):  # workers of one machine open the run at the same time
                if run_id_file.exists() and run_id_file.read_text(encoding="ascii") == run_id:
                    return
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                self.folder.mkdir()
                write_atomic(run_id_file, run_id.encode())
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def refuse_links(self) -> None:
        """Nothing: links lie in folders only."""

    def open_scene(self, commit_name: Callable[[], str | None]) -> zarr.Group:
        from quoin.pipeline.storage.remote_arrays import open_remote_scene

        def cache_prefix() -> str | None:
            return None if (name := commit_name()) is None else f"{self._cache_key}/{name}"

        return open_remote_scene(f"{self.location}/{SCENE_STORE}", self.cache, cache_prefix)

    def upload_outputs(self, stage: str) -> None:
        globs = output_patterns(stage)
        if not globs:
            return
        previous, names = self.read_upload_manifest(stage), list(matching_files(self.folder, globs))
        entries = dict(zip(names, self._put(names), strict=True))
        for removed in sorted(previous.keys() - entries.keys()):
            self.bucket.remove(removed)
        upload_manifest = {name: entry.model_dump() for name, entry in entries.items()}
        self.bucket.put(_upload_manifest_name(stage), json.dumps(upload_manifest, indent=1).encode())

    def read_upload_manifest(self, stage: str) -> dict[str, FileEntry]:
        if not output_patterns(stage):
            return {}
        data = self.bucket.read(_upload_manifest_name(stage)) or b"{}"
        try:
            return UPLOAD_MANIFEST.validate_json(data)
        except ValueError as error:
            what = f"the list of what {stage} has uploaded cannot be read ({first_line(error)})"
            raise damaged_file_error(_upload_manifest_name(stage), what) from error

    def committed_file(self, name: str, entry: FileEntry | None, commit_name: str) -> Path:
        local_path = self.folder / name
        if entry is None or (local_path.is_file() and sha256_of(local_path) == entry.sha256):
            return local_path

        def fetch(path: Path) -> None:
            found = self.bucket.download(name, path)
            if found != entry.sha256:
                what = "missing" if found is None else "not the one that was committed"
                raise damaged_file_error(name, f"this file is {what} at {self.location}")

        return self.cache.file(f"{self._cache_key}/{commit_name}/{name}", fetch)

    def upload(self, name: str, *, backup_name: str | None = None) -> None:
        if backup_name is not None:
            self.bucket.copy(name, backup_name)
        self.bucket.upload_file(name, self.folder / name)

    def download(self, name: str, *, keep_longer: bool = False) -> Path:
        path = self.folder / name
        if keep_longer:
            remote = self.bucket.head(name)
            if remote is None or remote[0] <= (path.stat().st_size if path.exists() else 0):
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            if self.bucket.download(name, part) is None:
                path.unlink(missing_ok=True)
        return path

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
        """A path in a folder of its own, which goes with the block."""
        with scratch_folder(self.folder) as folder:
            yield folder / name.rpartition("/")[2]

    def remove(self, name: str) -> None:
        super().remove(name)
        self.bucket.remove(name)

    def discard(self) -> None:
        super().discard()
        for name in (RUN_FILE, "logs"):
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
    """The storage of the run at a path or a URL."""
    url = storage_url(location)
    return LocalStorage(Path(location).absolute()) if url is None else ObjectStorage(url)


def _changed_by_another_error(location: str) -> QuoinError:
    return QuoinError(
        "Another quoin process has changed this run, so this one stops",
        where=location,
        hint="wait for it, or stop it and run quoin resume",
    )


def _not_empty_error(location: object) -> QuoinError:
    what = "The output folder is not empty and holds no quoin run"
    return QuoinError(what, where=location, hint="choose another --out")


def _upload_manifest_name(stage: str) -> str:
    return f"work/uploaded/{stage}.json"
