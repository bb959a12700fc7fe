"""The pipeline on one screen: the stages in order, and the loop that runs them, directly or inside a Prefect flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quoin.flows.settings import Settings
from quoin.pipeline.core.config import StageResult, suggest_closest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Workers
from quoin.pipeline.storage.object_store import StorageUnavailable
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import Stage, StageContext
from quoin.stages.fuse.stage import FUSE
from quoin.stages.ingest.stage import INGEST
from quoin.stages.partition.stage import PARTITION
from quoin.stages.pose.stage import POSE
from quoin.stages.priors.stage import PRIORS
from quoin.stages.report.stage import REPORT
from quoin.stages.train.stage import TRAIN

STAGES: list[Stage[Any, Any]] = [INGEST, POSE, PARTITION, PRIORS, TRAIN, FUSE, REPORT]  # each has a section in Settings

StageRunner = Callable[[Stage[Any, Any], Run, Settings, Workers, Reporter], Any]


def find_stage(name: str) -> Stage[Any, Any]:
    """The stage of this name; QuoinError with the nearest name where there is none."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise QuoinError("Unknown stage", where=name, hint=suggest_closest(name, [stage.name for stage in STAGES]))


def run_stage(stage: Stage[Any, Any], run: Run, settings: Settings, workers: Workers, report: Reporter) -> StageResult:
    """Run one stage, or keep its result where it is committed under the same key."""
    if stage is next((planned for planned in STAGES if planned.estimate), None):
        from quoin.flows.capacity import check_workers  # which adds up the estimates of STAGES

        check_workers(run, settings, workers)
    return stage(run, getattr(settings, stage.name), report, workers)


def run_stages(
    run: Run,
    settings: Settings,
    workers: Workers,
    report: Reporter,
    *,
    last_stage: str = "report",
    run_stage: StageRunner = run_stage,
) -> None:
    """Run every stage in order up to ``last_stage``; each is committed, so that a run that is stopped can be resumed.

    Where a stage raises QuoinError, a report is written of what the run has so far. Where a stage commits an incomplete
    result (blocks that could not be trained), the others use it, and PartialResult is raised at the end.
    """
    stages = STAGES[: STAGES.index(find_stage(last_stage)) + 1]
    with report.task("run", total=len(stages), unit="stages") as advance:
        for done, stage in enumerate(stages):
            try:
                run_stage(stage, run, settings, workers, report)
            except StorageUnavailable:
                raise
            except QuoinError:
                if run.manifest(STAGES[0].name):
                    write_partial_report(run, settings, workers, report)
                raise
            advance(done + 1)
    for stage in stages:
        if error := stage.incomplete(run):
            raise error


def write_partial_report(run: Run, settings: Settings, workers: Workers, report: Reporter) -> None:
    """Write the report of a run that cannot be finished: unused photos and why, posed photos, trained blocks."""
    try:
        result = find_stage("report").run(StageContext(run, report, workers), settings.report)
        report.log("report", f"what is known so far is in {result.path}")
    except Exception as error:  # the reason the run stopped matters more
        report.log("report", f"no report could be written: {error}", level="warning")


def invalidate_from(run: Run, name: str) -> None:
    """Invalidate a stage and those that need it, and remove their unfinished work."""
    run.invalidate(name)
    for stage in STAGES[STAGES.index(find_stage(name)) :]:
        if run.manifest(stage.name) is None:
            stage.discard_unfinished(run)
