"""A stage of the pipeline, declared once: what it needs, what it runs, what that costs, and its commit in run.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from quoin.pipeline.core.config import StageConfig
from quoin.pipeline.core.errors import PartialResult
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import InlineWorkers, Workers, out_of_memory_error, out_of_memory_reason
from quoin.pipeline.storage.disk import UNWRITABLE_ERRNOS, disk_error
from quoin.pipeline.storage.layout import DamagedError
from quoin.pipeline.storage.run import ResultT, Run

GIB = 1 << 30
PROCESS_BYTES = 1350 << 20  # interpreter, torch, a compiled step and its activations, what stereo left
FACES_PER_BRICK = 3.4  # of the surface, for each voxel of a brick's face; those of halos not counted twice


@runtime_checkable
class BlockLoad(Protocol):
    """Sizes of one block."""

    @property
    def memory_bytes(self) -> int: ...  # of training it

    @property
    def n_photos(self) -> int: ...

    @property
    def n_bricks(self) -> int: ...  # of surface, halo included

    @property
    def pixels(self) -> int: ...  # of its photos, at the pyramid levels it trains with


@dataclass(frozen=True)
class Workload:
    """Sizes of a partitioned scene, and how many workers, each like this machine, share it."""

    n_photos: int
    megapixels: float  # of all posed photos
    long_edge_px: float  # of the median photo
    brick_size: int  # voxels along a brick's side
    blocks: Sequence[BlockLoad]
    n_workers: int = 1

    @property
    def n_bricks(self) -> int:
        return sum(block.n_bricks for block in self.blocks)

    @property
    def n_faces(self) -> int:
        """Faces of the whole surface."""
        return surface_faces(self.n_bricks, self.brick_size)


@dataclass(frozen=True)
class Cost:
    """What a stage takes: seconds on two CPU cores of 2020s server class, memory at most, disk, and a note."""

    seconds: float
    memory_bytes: int
    disk_bytes: int
    note: str = ""


def brick_bytes(brick_size: int) -> int:
    """Bytes of one SDF brick in memory (float16)."""
    return 2 * (brick_size + 1) ** 3


def surface_faces(n_bricks: int, brick_size: int) -> int:
    """Faces of the surface in so many bricks."""
    return int(FACES_PER_BRICK * n_bricks * brick_size**2)


ConfigT = TypeVar("ConfigT", bound=StageConfig)


@dataclass(frozen=True)
class StageContext:
    """What a stage works with: the run it reads and writes, where it reports, who does its tasks."""

    run: Run
    report: Reporter
    workers: Workers


@dataclass(frozen=True)
class Stage(Generic[ConfigT, ResultT]):
    """A stage: called as ``stage(run, config, report, workers)`` it is skipped where it is committed under the same
    key, else ``run(context, config)`` does it and its result is committed.

    Who works (``workers``) decides how the result is made, not what it is, and is no part of the key.
    """

    name: str
    needs: tuple[str, ...]  # names of the stages whose results it reads
    version: int  # of its code: raised when the same inputs give another output
    config: type[ConfigT]
    result: type[ResultT]
    run: Callable[[StageContext, ConfigT], ResultT]
    inputs: Callable[[Run, ConfigT], str] = lambda run, config: ""  # hash of what it reads from outside the run
    estimate: Callable[[Workload, ConfigT], Cost] | None = None  # of a partitioned run; None: it costs little
    cleanup: Callable[[Run], None] = lambda run: None  # removes temporary data, once the result is committed
    is_begun: Callable[[Run], bool] = lambda run: False  # whether it left unfinished work that it would go on from
    discard: Callable[[Run], None] = lambda run: None  # removes unfinished work that is not in the folder work/<name>
    # the error for what a committed result lacks: it is raised at the end of the run, and the stage is redone next time
    partial_error: Callable[[Run, Mapping[str, Any]], PartialResult | None] = lambda run, result: None

    def __call__(
        self,
        run: Run,
        config: ConfigT,
        report: Reporter,
        workers: Workers = InlineWorkers(),  # noqa: B008  (stateless)
    ) -> ResultT:
        if self.incomplete(run):
            run.invalidate(self.name, parts=False)
        key, done = self.key(run, config), run.manifest(self.name)
        if done is not None and done.key == key:
            report.log(self.name, "already done, kept")
            self.cleanup(run)
            return run.result(self.name, self.result)
        began = time.monotonic()
        if done is not None:
            run.invalidate(self.name)
        try:
            result = self._run_without_damage(StageContext(run, report, workers), config)
        except OSError as error:
            if error.errno in UNWRITABLE_ERRNOS:
                raise disk_error(error, error.filename or run.path) from error
            raise
        except (RuntimeError, MemoryError) as error:
            if reason := out_of_memory_reason(error):
                raise out_of_memory_error(reason, f"{self.name} of {run.location}") from error
            raise
        run.storage.upload_outputs(self.name)
        run.commit(self.name, key, result, time.monotonic() - began, self.needs)
        self.cleanup(run)
        return result

    def _run_without_damage(self, context: StageContext, config: ConfigT) -> ResultT:
        """The result of ``run``. Where unfinished work of an earlier attempt is damaged, that is removed first."""
        try:
            return self.run(context, config)
        except DamagedError as error:
            if error.stage != self.name:
                raise
            what = f"unfinished work is damaged, thrown away and made again: {error.what} ({error.where})"
            context.report.log(self.name, what, "warning")
        self.discard_unfinished(context.run)
        return self.run(context, config)

    def key(self, run: Run, config: ConfigT) -> str:
        """Content hash that decides whether the stage must be redone."""
        return run.key(self.name, config, self.needs, self.version, self.inputs(run, config))

    def incomplete(self, run: Run) -> PartialResult | None:
        """The error for what the committed result lacks; None where it is complete or not committed."""
        if run.manifest(self.name) is None:
            return None
        return self.partial_error(run, run.result(self.name, self.result).model_dump(mode="json"))

    def discard_unfinished(self, run: Run) -> None:
        """Remove what unfinished work left in the run."""
        run.storage.remove(f"work/{self.name}")
        self.discard(run)
