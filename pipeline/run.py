"""The run folder: identity, resolved configuration, manifests. One atomic put of run.json is a stage's commit.

A stage's key is the hash of its configuration section, the keys of the stages it needs, the seed and its code version.
Same key: the stage is skipped. Different: it is redone, and everything downstream with it. Only the driver commits.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import zarr

from pipeline import __version__, store
from pipeline.config import StageConfig, StageResult, digest
from pipeline.errors import QuoinError
from pipeline.progress import Reporter

FORMAT = 1
RUN_FILE = "run.json"

Result = TypeVar("Result", bound=StageResult)


class Manifest(pydantic.BaseModel):
    """What a committed stage left: its key, its small result, how long it took."""

    key: str
    result: dict[str, Any]
    seconds: float
    committed_at: float
    needs: tuple[str, ...] = ()
    peak_memory_bytes: int = 0


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


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never half of it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(part, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def disk_error(error: OSError, where: object) -> QuoinError:
    """An OSError of writing, as a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuoinError("The disk is full", where=where, do="free some space, then run quoin resume")
    return QuoinError(f"Cannot write: {error.strerror or error}", where=where, do="choose a folder you may write to")


class Run:
    """One run folder. ``Run.create`` makes or re-opens it, ``Run.open`` opens an existing one."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record = path, record

    @classmethod
    def create(
        cls, path: Path, *, photos: Path, settings: dict[str, Any], seed: int, clips: Sequence[Path] = ()
    ) -> Run:
        """A run at ``path`` for ``photos`` (a folder, or a clip) and further ``clips``.

        An existing run of the same photos goes on with the new settings and clips.
        """
        path, photos = Path(path).absolute(), Path(photos).absolute()
        beside = tuple(str(Path(clip).absolute()) for clip in clips)
        if (path / RUN_FILE).exists():
            run = cls.open(path)
            if run.record.photos != str(photos) and run.record.manifests:  # without a commit there is nothing to lose
                raise QuoinError(
                    f"This folder holds another run, of the photos in {run.record.photos!r}",
                    where=path,
                    do="choose another --out, or delete the folder",
                )
            run.record = run.record.model_copy(
                update={
                    "photos": str(photos),
                    "clips": beside,
                    "settings": settings,
                    "settings_hash": digest(settings),
                    "seed": seed,
                    "quoin": __version__,
                }
            )
        else:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise QuoinError(
                    "The output folder is not empty and holds no run", where=path, do="choose another --out"
                )
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(error, path) from error
            run = cls(
                path,
                RunRecord(
                    id=uuid.uuid4().hex[:12],
                    quoin=__version__,
                    python=platform.python_version(),
                    created_at=time.time(),
                    seed=seed,
                    photos=str(photos),
                    clips=beside,
                    settings=settings,
                    settings_hash=digest(settings),
                ),
            )
        run.save()
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run at ``path``; QuoinError where there is none or another version made it."""
        path = Path(path).absolute()
        try:
            raw = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise QuoinError("There is no run here", where=path, do="name a folder made by quoin reconstruct") from None
        except (OSError, ValueError) as error:
            raise QuoinError(f"run.json cannot be read: {error}", where=path, do="restore it or start anew") from None
        if not isinstance(raw, dict):
            raise QuoinError("run.json is damaged: it is no mapping", where=path, do="restore it or start anew")
        if raw.get("format") != FORMAT:
            made_by, theirs = raw.get("quoin", "?"), raw.get("format")
            raise QuoinError(
                f"This run was made by quoin {made_by} (run format {theirs}, ours is {FORMAT})",
                where=path,
                do="use that version, or reconstruct into a new folder",
            )
        try:
            return cls(path, RunRecord.model_validate(raw))
        except pydantic.ValidationError as error:
            raise QuoinError(f"run.json is damaged: {error.errors()[0]['msg']}", where=path, do="start anew") from None

    def save(self) -> None:
        write_atomic(self.path / RUN_FILE, self.record.model_dump_json(indent=1).encode())

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def photos(self) -> Path:
        return Path(self.record.photos)

    @property
    def clips(self) -> list[Path]:
        return [Path(clip) for clip in self.record.clips]

    @functools.cached_property
    def scene(self) -> zarr.Group:
        """scene.zarr, what stages exchange."""
        return store.open_store(self.path / "scene.zarr")

    def table(self, name: str) -> Path:
        """Path of tables/<name>.parquet (its folder made)."""
        folder = self.path / "tables"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.parquet"

    # -- manifests ---------------------------------------------------------------------------------------------------

    def manifest(self, stage: str) -> Manifest | None:
        return self.record.manifests.get(stage)

    def require(self, stage: str) -> Manifest:
        """The committed manifest of ``stage``, or a sentence that it is missing."""
        found = self.manifest(stage)
        if found is None:
            raise QuoinError(
                f"Stage {stage!r} has not been completed in this run", where=self.path, do="run quoin resume"
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
        )
        before = self.record
        self.record = before.model_copy(update={"manifests": {**before.manifests, stage: manifest}})
        try:
            self.save()
        except QuoinError:  # what is not on disk is not committed
            self.record = before
            raise

    def invalidate(self, *stages: str, parts: bool = True) -> None:
        """Forget the commits of ``stages``, of their ``parts`` ("train/b0" of "train") and of what needed them."""
        kept, gone = self.record.manifests, set(stages)
        while lost := {k for k, m in kept.items() if gone & {k, *([k.split("/")[0]] if parts else []), *m.needs}}:
            gone |= lost
            kept = {k: m for k, m in kept.items() if k not in lost}
        if len(kept) < len(self.record.manifests):
            self.record.manifests = kept
            self.save()


def peak_memory_bytes() -> int:
    """Largest resident size this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def stage(
    name: str,
    *,
    needs: tuple[str, ...],
    version: int,
    result: type[Result],
    inputs: Callable[[Run, Any], str] | None = None,
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make ``run(run, config, report) -> result`` a stage: skip when committed under the same key, else do and commit.

    ``version`` is the stage's code version: raise it when the same input would give another output.
    ``inputs(run, config)`` is a hash of what the stage reads from outside the run (the photo folder), where it does.
    What else ``run`` is given (a device) says how the result is made, not what it is, and is no part of the key.
    """

    def wrap(work: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(work)
        def run_stage(run: Run, config: StageConfig, report: Reporter, **how: Any) -> Result:
            key = run.key(name, config, needs, version, inputs(run, config) if inputs else "")
            done = run.manifest(name)
            if done is not None and done.key == key:
                report.log(name, "already done, kept")
                return result.model_validate(done.result)
            began = time.monotonic()
            if done is not None:
                run.invalidate(name)
            try:
                made = work(run, config, report, **how)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                    raise disk_error(error, error.filename or run.path) from error
                raise
            run.commit(name, key, made, time.monotonic() - began, needs)
            return made

        run_stage.stage_name = name  # type: ignore[attr-defined]
        run_stage.needs = needs  # type: ignore[attr-defined]
        return run_stage

    return wrap
