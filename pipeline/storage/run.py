"""A run: identity, resolved configuration, manifests. One atomic put of run.json is a stage's commit.

It lives in a folder or in object storage (``pipeline.storage.backend``), and is written by way of a folder of this
machine.

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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import zarr

from quoin import __version__
from quoin.pipeline.core.config import StageConfig, StageResult, digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.atomic import UNWRITABLE, disk_error
from quoin.pipeline.storage.backend import RUN_FILE, Home, home_of
from quoin.pipeline.storage.layout import Leaf
from quoin.pipeline.storage.object_store import url_of
from quoin.pipeline.storage.photo_mirror import mirror, mirror_file

__all__ = ["RUN_FILE", "Manifest", "Run", "RunRecord", "forget_peak_memory", "peak_memory_bytes", "stage"]

FORMAT = 1

Result = TypeVar("Result", bound=StageResult)


class Manifest(pydantic.BaseModel):
    """What a committed stage left: its key, its small result, how long it took."""

    key: str
    result: dict[str, Any]
    seconds: float
    committed_at: float
    needs: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    files: dict[str, Leaf] = {}  # what it left beside scene.zarr, in object storage only


class RunRecord(pydantic.BaseModel):
    """The content of run.json."""

    format: int = FORMAT
    id: str
    quoin: str
    python: str
    created_at: float
    seed: int
    photos: str
    clips: tuple[str, ...] = ()  # given beside ``photos``
    settings: dict[str, Any]
    settings_hash: str
    manifests: dict[str, Manifest] = {}


class Run:
    """One run. ``Run.create`` makes or re-opens it, ``Run.open`` opens an existing one: by its folder, or its URL.

    ``path`` is the folder where this process writes files: the run's own, or a working folder on this machine.
    """

    def __init__(self, home: Home, record: RunRecord) -> None:
        self._home, self.record = home, record
        self.path = home.folder

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
        home, source = home_of(place), _source(photos)
        now = {
            "photos": source,
            "clips": tuple(_source(clip) for clip in clips),
            "settings": settings,
            "settings_hash": digest(settings),
            "seed": seed,
            "quoin": __version__,
        }
        if (data := home.read_record()) is not None:
            run = cls(home, _record(data, home.address))
            others = _where(run.record.photos) != _where(source)
            if others and run.record.manifests:  # without a commit there is nothing to lose
                raise QuoinError(
                    f"This folder holds another run, of the photos in {run.record.photos!r}",
                    where=home.address,
                    do="choose another --out, or delete the folder",
                )
            run.record = run.record.model_copy(update=now)
        else:
            home.make()
            new = {"id": uuid.uuid4().hex[:12], "python": platform.python_version(), "created_at": time.time()}
            run = cls(home, RunRecord.model_validate(new | now))
        home.adopt(run.record.id)
        run.save()
        return run

    @classmethod
    def open(cls, place: Path | str) -> Run:
        """The run at ``place``; QuoinError where there is none or another version made it."""
        home = home_of(place)
        data = home.read_record()
        if data is None:
            do = "name a run made by quoin reconstruct"
            raise QuoinError("There is no run here", where=home.address, do=do)
        run = cls(home, _record(data, home.address))
        home.adopt(run.record.id)
        return run

    @staticmethod
    def exists(place: Path | str) -> bool:
        """Whether there is a run at ``place``."""
        return home_of(place).read_record() is not None

    def save(self) -> None:
        self._home.write_record(self.record.model_dump_json(indent=1).encode())

    @property
    def home(self) -> str:
        """The run's folder or URL: for people, and for other processes to open it."""
        return self._home.address

    @property
    def name(self) -> str:
        """The last part of the run's folder or URL."""
        return self.home.rpartition("/")[2]

    @property
    def seed(self) -> int:
        return self.record.seed

    @functools.cached_property
    def photos(self) -> Path:
        """The photos on this machine: their folder, or for a URL a copy that is brought up to date first."""
        return mirror(self.record.photos)

    @functools.cached_property
    def clips(self) -> list[Path]:
        return [mirror(clip) for clip in self.record.clips]

    @functools.cached_property
    def scene(self) -> zarr.Group:
        """scene.zarr, what stages exchange."""
        return self._home.open_scene(lambda: self._commit_name("pose"))

    def table(self, name: str) -> Path:
        """Path of tables/<name>.parquet to be written (its folder made)."""
        folder = self.path / "tables"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.parquet"

    # -- files -------------------------------------------------------------------------------------------------------

    def file(self, name: str) -> Path:
        """A file of the run to be read: as it was committed, brought to this machine where it is not here.

        What no commit names is looked for in the working folder only, and may not exist. QuoinError where the home
        has no longer what was committed.
        """
        for stage, manifest in self.record.manifests.items():
            if name in manifest.files:
                return self._home.file(name, manifest.files[name], self._commit_name(stage) or "")
        return self._home.file(name, None, "")

    def files(self, folder: str) -> list[Path]:
        """The committed files in ``folder`` of the run, or those that are there where no commit names any."""
        named = [n for m in self.record.manifests.values() for n in m.files if n.rpartition("/")[0] == folder]
        if named:
            return [self.file(name) for name in sorted(named)]
        return sorted(path for path in (self.path / folder).glob("*") if path.is_file())

    def at_home(self, path: Path | str) -> str:
        """Where a person finds a file of the working folder, or of this name."""
        whole = self.path / path
        return (
            f"{self.home}/{whole.relative_to(self.path).as_posix()}" if whole.is_relative_to(self.path) else str(path)
        )

    def hand_in(self, stage: str) -> None:
        """Bring home what ``stage`` left in the working folder: whoever did its work, before it is committed."""
        self._home.hand_in(stage)

    def share(self, name: str, *, before: str | None = None) -> None:
        """Bring a working file home at once, for another machine to go on with; ``before``: name for what was there."""
        self._home.share(name, before)

    def bring(self, name: str) -> Path:
        """A shared working file as it is at home; it may not exist."""
        self._home.bring(name)
        return self.path / name

    def catch_up(self, name: str) -> None:
        """Have a working file that only grows as it is at home, unless more of it is here."""
        self._home.catch_up(name)

    def deposit(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to: what was written there is a working file at home, whole, and nowhere else."""
        return self._home.deposit(name)

    def borrowed(self, name: str) -> AbstractContextManager[Path]:
        """A working file as it is at home, to be read inside; it may not exist."""
        return self._home.borrowed(name)

    def remove(self, name: str) -> None:
        """Remove a working file or folder, here and at home."""
        self._home.remove(name)

    def put_beside(self, since: float) -> None:
        """Bring home what commands beside the stages wrote since then (seconds since the epoch)."""
        self._home.put_beside(since)

    def portable(self, path: str) -> str:
        """A path as a table keeps it: one in the run, or of this machine's copies, by where it lies in there."""
        copies = {"run": self.path}  # which may be moved, or a copy of what is at a URL
        copies |= {"photos": self.photos} if url_of(self.record.photos) else {}
        for kind, folder in copies.items():
            if path and Path(path).is_relative_to(folder):
                return f"{kind}:{Path(path).relative_to(folder).as_posix()}"
        return path

    def local(self, path: str, *, alone: bool = False) -> str:
        """The path on this machine of what ``portable`` named; ``alone``: without bringing all other photos here."""
        kind, _, name = path.partition(":")
        match kind:
            case "run":
                return str(self.file(name))
            case "photos":
                return str(mirror_file(self.record.photos, name) if alone else self.photos / name)
        return path

    # -- manifests ---------------------------------------------------------------------------------------------------

    def manifest(self, stage: str) -> Manifest | None:
        return self.record.manifests.get(stage)

    def require(self, stage: str) -> Manifest:
        """The committed manifest of ``stage``, or a sentence that it is missing."""
        found = self.manifest(stage)
        if found is None:
            raise QuoinError(
                f"Stage {stage!r} has not been completed in this run", where=self.home, do="run quoin resume"
            )
        return found

    def key(self, stage: str, config: StageConfig, needs: tuple[str, ...], version: int, inputs: str = "") -> str:
        """Content hash that decides whether ``stage`` must be redone; ``inputs`` stands for what it reads outside."""
        parents = [self.require(need).key for need in needs]
        parts = [stage, config.model_dump(mode="json"), parents, self.seed, version, self.record.photos]
        return digest([*parts, *self.record.clips, *([inputs] if inputs else [])])

    def commit(self, stage: str, key: str, result: StageResult, seconds: float, needs: tuple[str, ...] = ()) -> None:
        """Put the manifest entry of ``stage``: from here on readers may trust what it wrote."""
        manifest = Manifest(
            key=key,
            result=result.model_dump(mode="json"),
            seconds=seconds,
            committed_at=time.time(),
            peak_memory_bytes=peak_memory_bytes(),
            needs=needs,
            files=self._home.receipt(stage),
        )
        before = self.record
        self.record = before.model_copy(update={"manifests": {**before.manifests, stage: manifest}})
        try:
            self.save()
        except QuoinError:  # what is not on disk is not committed
            self.record = before
            raise

    def _commit_name(self, stage: str) -> str | None:
        """A name for what ``stage`` last committed, and nothing else ever; None where it has not."""
        done = self.manifest(stage)
        where = stage.replace("/", "-")
        return None if done is None else f"{self.record.id}/{where}-{done.key[:12]}-{int(1e6 * done.committed_at):x}"

    def invalidate(self, *stages: str, parts: bool = True) -> None:
        """Forget the commits of ``stages``, of their ``parts`` ("train/b0" of "train") and of what needed them."""
        kept, gone = self.record.manifests, set(stages)
        while lost := {k for k, m in kept.items() if gone & {k, *([k.split("/")[0]] if parts else []), *m.needs}}:
            gone |= lost
            kept = {k: m for k, m in kept.items() if k not in lost}
        if len(kept) < len(self.record.manifests):
            self.record.manifests = kept
            self.save()


def _source(place: Path | str) -> str:
    """Photos or a clip as run.json names them: an absolute path, or a URL."""
    return url_of(place) or str(Path(place).absolute())


def _where(source: str) -> str:
    """Where such a path leads, however it is said."""
    return url_of(source) or os.path.realpath(source)


def _record(data: bytes, where: str) -> RunRecord:
    """What run.json says; QuoinError where it is damaged, or of a format that is not ours."""
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise QuoinError(f"run.json cannot be read: {error}", where=where, do="restore it or start anew") from None
    if not isinstance(raw, dict):
        raise QuoinError("run.json is damaged: it is no mapping", where=where, do="restore it or start anew")
    if raw.get("format") != FORMAT:
        made_by, theirs = raw.get("quoin", "?"), raw.get("format")
        raise QuoinError(
            f"This run was made by quoin {made_by} (run format {theirs}, ours is {FORMAT})",
            where=where,
            do="use that version, or reconstruct into a new folder",
        )
    try:
        return RunRecord.model_validate(raw)
    except pydantic.ValidationError as error:
        raise QuoinError(f"run.json is damaged: {error.errors()[0]['msg']}", where=where, do="start anew") from None


def peak_memory_bytes() -> int:
    """Largest resident size this process has had, since the last ``forget_peak_memory`` where it could forget."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def forget_peak_memory() -> None:
    """From here on the largest resident size is what it will be; Linux only."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def stage(
    name: str,
    *,
    needs: tuple[str, ...],
    version: int,
    result: type[Result],
    inputs: Callable[[Run, Any], str] | None = None,
    after: Callable[[Run], None] = lambda run: None,
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make ``run(run, config, report) -> result`` a stage: skip when committed under the same key, else do and commit.

    ``version`` is the stage's code version: raise it when the same input would give another output.
    ``inputs(run, config)`` is a hash of what the stage reads from outside the run (the photo folder), where it does.
    ``after(run)`` clears away what the work needed: once it is committed, again where that was interrupted.
    What else ``run`` is given (a device) says how the result is made, not what it is, and is no part of the key.
    """

    def wrap(work: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(work)
        def run_stage(run: Run, config: StageConfig, report: Reporter, **how: Any) -> Result:
            key = run.key(name, config, needs, version, inputs(run, config) if inputs else "")
            done = run.manifest(name)
            if done is not None and done.key == key:
                report.log(name, "already done, kept")
                after(run)
                return result.model_validate(done.result)
            began = time.monotonic()
            if done is not None:
                run.invalidate(name)
            try:
                made = work(run, config, report, **how)
            except OSError as error:
                if error.errno in UNWRITABLE:
                    raise disk_error(error, error.filename or run.path) from error
                raise
            run.hand_in(name)
            run.commit(name, key, made, time.monotonic() - began, needs)
            after(run)
            return made

        return run_stage

    return wrap
