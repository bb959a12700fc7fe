"""A run: identity, resolved configuration, manifests. One atomic put of run.json is a stage's commit.

It is stored in a folder or in object storage (``pipeline.storage.backend``); files go through ``run.storage``.

A stage's key is the hash of its configuration section, the keys of the stages it needs, the seed and its code version.
Same key: the stage is skipped. Different: it is redone, and everything downstream with it. Only the driver commits.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import zarr

from quoin import __version__
from quoin.pipeline.core.config import StageConfig, StageResult, digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.backend import RUN_FILE, LocalStorage, open_storage
from quoin.pipeline.storage.cache import mirror_photos
from quoin.pipeline.storage.layout import FileEntry, check_relative_name, damaged_result_error
from quoin.pipeline.storage.object_store import storage_url

__all__ = ["RUN_FILE", "Manifest", "Run", "RunRecord", "peak_memory_bytes", "reset_peak_memory", "sync_received_runs"]

RUN_FORMAT = 2
# Files and folders of a run in which nothing is worth to be kept.
EMPTY_RUN_FILES = {RUN_FILE, "logs", "tables", "scene.zarr", "report.html", "report.json", f".{RUN_FILE}.lock", ".lock"}
ResultT = TypeVar("ResultT", bound=StageResult)


RelativeName = Annotated[str, pydantic.AfterValidator(check_relative_name)]  # files and folders are named after it


class Manifest(pydantic.BaseModel):
    """What a committed stage left: its key, its small result, how long it took."""

    key: RelativeName
    result: dict[str, Any]
    seconds: float
    committed_at: float
    needs: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    files: dict[RelativeName, FileEntry] = {}  # what it left beside scene.zarr, in object storage only


class RunRecord(pydantic.BaseModel):
    """The content of run.json."""

    format: int = RUN_FORMAT
    id: RelativeName
    quoin: str
    python: str
    created_at: float
    seed: int
    photos: str
    clips: tuple[str, ...] = ()  # given beside ``photos``
    settings: dict[str, Any]
    manifests: dict[str, Manifest] = {}


class Run:
    """One run. ``Run.create`` makes or re-opens it, ``Run.open`` opens an existing one: by its folder, or its URL.

    ``location`` is that folder or URL; ``path`` is the folder where this process writes files: the run's own, or a
    working folder on this machine. ``storage`` moves files between the two.
    """

    def __init__(self, storage: LocalStorage, record: RunRecord) -> None:
        self.storage, self.record = storage, record
        self.path, self.location, self.seed = storage.folder, storage.location, record.seed

    def __reduce__(self) -> tuple[Any, ...]:  # another process opens it where it lives
        return _open_received, (self.location,)

    @classmethod
    def create(
        cls,
        place: Path | str,
        *,
        photos: Path | str,
        settings: dict[str, Any],
        seed: int,
        clips: Sequence[Path | str] = (),
    ) -> Run:
        """A run at ``place`` for ``photos`` (a folder, a clip, or a URL) and further ``clips``.

        An existing run of the same photos goes on with the new settings and clips.
        """
        storage, source = open_storage(place), _source_location(photos)
        now = {
            "photos": source,
            "clips": tuple(_source_location(clip) for clip in clips),
            "settings": settings,
            "seed": seed,
            "quoin": __version__,
        }
        if (data := storage.read_record()) is not None:
            storage.refuse_links()
            record = _parse_record(data, storage.location)
            is_of_others = _resolved_source(record.photos) != _resolved_source(source)
            if is_of_others and record.manifests:  # without a commit there is nothing to lose
                raise QuoinError(
                    f"This folder holds another run, of the photos in {record.photos!r}",
                    where=storage.location,
                    hint="choose another --out, or delete the folder",
                )
            record = record.model_copy(update=now)
        else:
            new = {"id": uuid.uuid4().hex[:12], "python": platform.python_version(), "created_at": time.time()}
            record = RunRecord.model_validate(new | now)
        storage.prepare(record.id, is_new=data is None)
        run = cls(storage, record)
        run.save()
        return run

    @classmethod
    def open(cls, place: Path | str) -> Run:
        """The run at ``place``; QuoinError where there is none, another version made it, or links lie in its folder."""
        run = cls._open(open_storage(place))
        run.storage.refuse_links()
        return run

    @classmethod
    def _open(cls, storage: LocalStorage) -> Run:
        data = storage.read_record()
        if data is None:
            hint = "name the folder or URL of a run made by quoin reconstruct"
            raise QuoinError("There is no quoin run here", where=storage.location, hint=hint)
        run = cls(storage, _parse_record(data, storage.location))
        storage.prepare(run.record.id)
        return run

    @staticmethod
    def exists(place: Path | str) -> bool:
        """Whether there is a run at ``place``."""
        return open_storage(place).read_record() is not None

    def discard_if_empty(self) -> None:
        """Remove the run where it has no commit, no work to go on from, and no traceback to be read."""
        left = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        has_crashed = any((self.path / "logs").glob("crash-*"))
        if not self.record.manifests and not has_crashed and left <= EMPTY_RUN_FILES:
            self.storage.discard()

    def save(self) -> None:
        """Write run.json."""
        self.storage.write_record(self.record.model_dump_json(indent=1).encode())

    @functools.cached_property
    def photos(self) -> Path:
        """Folder of the photos on this machine; of those at a URL, that of a copy that is brought up to date first."""
        return mirror_photos(self.record.photos)

    @functools.cached_property
    def clips(self) -> list[Path]:
        """Files of the clips given beside the photos, on this machine."""
        return [mirror_photos(clip) for clip in self.record.clips]

    @functools.cached_property
    def scene(self) -> zarr.Group:
        """The group scene.zarr: arrays that stages exchange."""
        return self.storage.open_scene(lambda: self._commit_name("pose"))

    def table(self, name: str) -> Path:
        """Path of tables/<name>.parquet for writing; its folder is made."""
        folder = self.path / "tables"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.parquet"

    def file(self, name: str) -> Path:
        """Path of a file of the run for reading: as it was committed, downloaded where it is not on this machine.

        A file that no commit lists is looked for in the working folder only, and may not exist. QuoinError where the
        storage no longer has what was committed.
        """
        for stage, manifest in self.record.manifests.items():
            if name in manifest.files:
                return self.storage.committed_file(name, manifest.files[name], self._commit_name(stage) or "")
        return self.storage.committed_file(name, None, "")

    def files(self, folder: str) -> list[Path]:
        """The committed files in ``folder`` of the run; all files there where no commit lists any."""
        named = [n for m in self.record.manifests.values() for n in m.files if n.rpartition("/")[0] == folder]
        if named:
            return [self.file(name) for name in sorted(named)]
        return sorted(path for path in (self.path / folder).glob("*") if path.is_file())

    # -- manifests ---------------------------------------------------------------------------------------------------

    def manifest(self, stage: str) -> Manifest | None:
        """The manifest of ``stage``, or None where it is not committed."""
        return self.record.manifests.get(stage)

    def require(self, stage: str) -> Manifest:
        """The manifest of ``stage``; QuoinError where it is not committed."""
        found = self.manifest(stage)
        if found is None:
            raise QuoinError(
                f"Stage {stage!r} has not been completed in this run", where=self.location, hint="run quoin resume"
            )
        return found

    def result(self, stage: str, kind: type[ResultT]) -> ResultT:
        """The result that ``stage`` committed; QuoinError where it is not committed, or not a ``kind``."""
        try:
            return kind.model_validate(self.require(stage).result)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise damaged_result_error(stage, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def result_value(self, stage: str, name: str) -> Any:
        """One value of the result that ``stage`` committed; QuoinError where it is not committed, or lacks it."""
        result = self.require(stage).result
        if name not in result:
            raise damaged_result_error(stage, f"{name} is missing")
        return result[name]

    def key(self, stage: str, config: StageConfig, needs: tuple[str, ...], version: int, inputs: str = "") -> str:
        """Content hash that decides whether ``stage`` must be redone; ``inputs`` stands for what it reads outside."""
        parents = [self.require(need).key for need in needs]
        parts = [stage, config.model_dump(mode="json"), parents, self.seed, version, self.record.photos]
        return digest([*parts, *self.record.clips, *([inputs] if inputs else [])])

    def commit(self, stage: str, key: str, result: StageResult, seconds: float, needs: tuple[str, ...] = ()) -> None:
        """Write the manifest of ``stage`` into run.json: from here on readers may trust what it wrote."""
        manifest = Manifest(
            key=key,
            result=result.model_dump(mode="json"),
            seconds=seconds,
            committed_at=time.time(),
            peak_memory_bytes=peak_memory_bytes(),
            needs=needs,
            files=self.storage.read_upload_manifest(stage),
        )
        self.storage.sync()  # what the commit says is there survives a power cut
        previous = self.record
        self.record = previous.model_copy(update={"manifests": {**previous.manifests, stage: manifest}})
        try:
            self.save()
        except QuoinError:  # what is not on disk is not committed
            self.record = previous
            raise

    def _commit_name(self, stage: str) -> str | None:
        """A name for the last commit of ``stage`` that no other commit ever has; None where it is not committed."""
        done = self.manifest(stage)
        where = stage.replace("/", "-")
        return None if done is None else f"{self.record.id}/{where}-{done.key[:12]}-{int(1e6 * done.committed_at):x}"

    def invalidate(self, *stages: str, parts: bool = True) -> None:
        """Forget the commits of ``stages``, of their ``parts`` ("train/b0" of "train") and of what needed them."""
        remaining, invalid = self.record.manifests, set(stages)
        while lost := {
            k for k, m in remaining.items() if invalid & {k, *([k.split("/")[0]] if parts else []), *m.needs}
        }:
            invalid |= lost
            remaining = {k: m for k, m in remaining.items() if k not in lost}
        if len(remaining) < len(self.record.manifests):
            self.record.manifests = remaining
            self.save()


_received: dict[str, LocalStorage] = {}  # storages of the runs that other processes sent to this one, by location


def _open_received(location: str) -> Run:
    run = Run._open(open_storage(location))  # its driver has looked for links
    _received[location] = run.storage
    return run


def sync_received_runs() -> None:
    """Bring to the disk what this process wrote into the runs that it was sent, before it says that a task is done."""
    for storage in _received.values():
        storage.sync()


def _source_location(place: Path | str) -> str:
    """Photos or a clip as run.json names them: an absolute path, or a URL."""
    return storage_url(place) or str(Path(place).absolute())


def _resolved_source(source: str) -> str:
    """Where such a path leads, however it is said."""
    return storage_url(source) or os.path.realpath(source)


def _parse_record(data: bytes, where: str) -> RunRecord:
    """The record in run.json; QuoinError where it is damaged, or of another format."""
    try:
        raw = json.loads(data)
        if not isinstance(raw, dict):
            raise ValueError("it holds no JSON object")
        if raw.get("format") != RUN_FORMAT:
            raise _format_error(raw, where)
        return RunRecord.model_validate(raw)
    except ValueError as error:
        what = error.errors()[0]["msg"] if isinstance(error, pydantic.ValidationError) else str(error)
        hint = "restore it or start a new run"
        raise QuoinError(f"run.json is damaged: {what}", where=where, hint=hint) from None


def _format_error(raw: dict[str, Any], where: str) -> QuoinError:
    return QuoinError(
        f"This run was made by quoin {raw.get('quoin', '?')} (run format {raw.get('format')}), and this version reads "
        f"run format {RUN_FORMAT}",
        where=where,
        hint="use that version, or reconstruct again into a new folder",
    )


def peak_memory_bytes() -> int:
    """Largest resident size this process has had, since the last ``reset_peak_memory`` where it could forget."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def reset_peak_memory() -> None:
    """From here on the largest resident size is what it will be; Linux only."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)
