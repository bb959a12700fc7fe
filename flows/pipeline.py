"""The whole pipeline on one screen: what runs after what. Run directly, or inside a Prefect flow."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from quoin.cluster.blocks import check_all_trained, train_blocks
from quoin.cluster.executor import Executor, pick_device
from quoin.cluster.fusion import fuse_blocks
from quoin.cluster.poses import estimate_poses
from quoin.cluster.priors import estimate_priors
from quoin.flows.capacity import check_resources
from quoin.flows.settings import STAGES, Settings
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.object_store import StorageUnavailable
from quoin.pipeline.storage.run import Run

StageRunner = Callable[[str, Run, Settings, Executor, Reporter], Any]


def run_stage(stage: str, run: Run, settings: Settings, executor: Executor, report: Reporter) -> StageResult:
    """Do one stage, or keep it where it is committed under the same key."""
    if stage == "pose":
        return estimate_poses(run, settings.pose, executor, report)
    if stage == "train":
        return train_blocks(run, settings.train, executor, report)
    if stage == "priors":
        check_resources(run, settings, pick_device(executor.device) if executor.address is None else None)
        return estimate_priors(run, settings.priors, executor, report)
    if stage == "fuse":
        return fuse_blocks(run, settings.fuse, executor, report)
    work = importlib.import_module(f"quoin.stages.{stage}.stage").run
    return work(run, getattr(settings, stage), report)


def run_stages(
    run: Run,
    settings: Settings,
    executor: Executor,
    report: Reporter,
    *,
    last_stage: str = "report",
    run_stage: StageRunner = run_stage,
) -> None:
    """Every stage in order up to ``last_stage``; each commits, so that a run that is stopped goes on where it was.

    Where a stage refuses, the report is written of what is known by then, and says why. Where blocks could not be
    trained, the rest is done without them, and PartialResult raised at the end.
    """
    stages = STAGES[: STAGES.index(last_stage) + 1]
    with report.task("run", total=len(stages), unit="stages") as advance:
        for done, stage in enumerate(stages):
            try:
                run_stage(stage, run, settings, executor, report)
            except StorageUnavailable:
                raise
            except QuoinError:
                if run.manifest("ingest"):
                    write_partial_report(run, settings, report)
                raise
            advance(done + 1)
    if "train" in stages:
        check_all_trained(run)


def write_partial_report(run: Run, settings: Settings, report: Reporter) -> None:
    """The report of a run that cannot be finished: unused photos and why, what was posed, the blocks that are there."""
    from quoin.stages.report.stage import write_html_report

    try:
        report.log("report", f"what is known so far is in {write_html_report(run, settings.report, report).path}")
    except Exception as error:  # the reason the run stopped matters more
        report.log("report", f"no report could be written: {error}", level="warning")


def invalidate_from(run: Run, stage: str) -> None:
    """Forget ``stage`` and all that came of it, with what its half-done work left behind."""
    run.invalidate(stage)
    redone = [later for later in STAGES[STAGES.index(stage) :] if run.manifest(later) is None]
    if "priors" in redone:
        arrays.delete_node(run.scene, "priors")
    for later in redone:
        run.storage.remove(f"work/{'blocks' if later == 'train' else later}")
