"""A stage of the pipeline: declared once, it runs where its key has changed, and commits what it made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import PartialResult
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import InlineWorkers, Workers
from quoin.pipeline.core.workload import Cost, Workload
from quoin.pipeline.storage.atomic import UNWRITABLE_ERRNOS, disk_error
from quoin.pipeline.storage.run import Run

ConfigT = TypeVar("ConfigT", bound=StageConfig)
ResultT = TypeVar("ResultT", bound=StageResult)


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
            return self.result.model_validate(done.result)
        began = time.monotonic()
        if done is not None:
            run.invalidate(self.name)
        try:
            result = self.run(StageContext(run, report, workers), config)
        except OSError as error:
            if error.errno in UNWRITABLE_ERRNOS:
                raise disk_error(error, error.filename or run.path) from error
            raise
        run.storage.upload_outputs(self.name)
        run.commit(self.name, key, result, time.monotonic() - began, self.needs)
        self.cleanup(run)
        return result

    def key(self, run: Run, config: ConfigT) -> str:
        """Content hash that decides whether the stage must be redone."""
        return run.key(self.name, config, self.needs, self.version, self.inputs(run, config))

    def incomplete(self, run: Run) -> PartialResult | None:
        """The error for what the committed result lacks; None where it is complete or not committed."""
        done = run.manifest(self.name)
        return None if done is None else self.partial_error(run, done.result)

    def discard_unfinished(self, run: Run) -> None:
        """Remove what unfinished work left in the run."""
        run.storage.remove(f"work/{self.name}")
        self.discard(run)
