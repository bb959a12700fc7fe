"""Light stages that stand in for the real ones: what is tested with them is what runs after what.

Each has the settings of the real stage; ``value`` in its result is that of one of them (VALUE_KEYS).
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Task, TaskContext, map_all
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import Block, Partition, write_partition
from quoin.pipeline.scene.photo_table import write_photo_table, write_pose_rows
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import Stage, StageContext
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.stage import FUSE
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.stage import INGEST
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.partition.stage import PARTITION
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.stage import POSE
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stage import PRIORS
from quoin.stages.report.config import ReportConfig
from quoin.stages.report.stage import REPORT
from quoin.stages.train.stage import TRAIN

PARTS = 4  # that a stage writes
VALUE_KEYS = {
    "ingest": "max_frames",
    "pose": "min_points",
    "partition": "max_photos",
    "priors": "stereo_edge_px",
    "train": "steps",
    "fuse": "part_faces",
    "report": "view_edge_px",
}


class LightResult(StageResult):
    value: int


class LightReportResult(LightResult):
    path: str


def behave(name: str, run: Run, config: StageConfig, report: Reporter) -> LightResult:
    """Write down that ``name`` began. FAKE_WAIT=<name> waits FAKE_SECONDS, FAKE_FAIL, _FULL and _BREAK go wrong.

    FAKE_PACE=<seconds> takes so long, and leaves ``value`` in the store, part by part.
    """
    value = getattr(config, VALUE_KEYS[name.partition("/")[0]])
    with open(run.path / "began.txt", "a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    with report.task(name, 2, "steps") as advance:
        advance(1)
        if os.environ.get("FAKE_WAIT") == name:
            (run.path / "waiting").write_text(str(os.getpid()))
            time.sleep(float(os.environ.get("FAKE_SECONDS", "240")))
        if os.environ.get("FAKE_FAIL") == name:
            raise QuoinError("Nothing fits", where=name, hint="take more photos")
        if os.environ.get("FAKE_FULL") == name:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        if os.environ.get("FAKE_BREAK") == name:
            raise ZeroDivisionError("a mistake of ours")
        if pace := float(os.environ.get("FAKE_PACE", "0")):
            for part in range(PARTS):
                arrays.write_array(run.scene, f"paced/{name}/{part}", np.full(4, value))
                time.sleep(pace / PARTS)
        advance(2)
    report.log(name, "hello")
    return LightResult(value=value)


def ingest(context: StageContext, config: IngestConfig) -> LightResult:
    write_photo_table(context.run, [])
    return behave("ingest", context.run, config, context.report)


def pose(context: StageContext, config: PoseConfig) -> LightResult:
    write_pose_rows(context.run, [])
    return behave("pose", context.run, config, context.report)


def partition(context: StageContext, config: PartitionConfig) -> LightResult:
    """As many blocks as ``min_blocks`` asks for, and two at least."""
    result = behave("partition", context.run, config, context.report)
    n = max(2, config.min_blocks)
    blocks = [
        Block(f"b{i}", BrickBox((i, 0, 0), (i + 1, 1, 1)), 1, np.arange(3), np.ones(3), cost=float(i)) for i in range(n)
    ]
    lattice = Lattice((0.0, 0.0, 0.0), 0.1)
    write_partition(context.run, Partition(lattice, blocks, np.zeros(3), np.array([n * 3.2, 3.2, 3.2])))
    return result


def priors(context: StageContext, config: PriorsConfig) -> LightResult:
    """By a worker, wherever that is."""
    task = Task("priors/all", (context.run, config))
    with context.workers.session():
        [result] = map_all(context.workers, priors_of_all_photos, [task], context.report)
    return result


def priors_of_all_photos(context: TaskContext, run: Run, config: PriorsConfig) -> LightResult:
    return behave("priors", run, config, context.report)


def fuse(context: StageContext, config: FuseConfig) -> LightResult:
    return behave("fuse", context.run, config, context.report)


def report(context: StageContext, config: ReportConfig) -> LightReportResult:
    result = behave("report", context.run, config, context.report)
    path = context.run.path / "report.html"
    path.write_text(f"known: {sorted(context.run.record.manifests)}")
    return LightReportResult(value=result.value, path=str(path))


def light(stage: Stage[Any, Any], **changed: Any) -> Stage[Any, Any]:
    """``stage`` with other functions; it reads nothing outside the run, and is not planned."""
    return replace(stage, inputs=lambda run, config: "", estimate=None, **changed)


LIGHT_STAGES = [
    light(INGEST, run=ingest, result=LightResult),
    light(POSE, run=pose, result=LightResult),
    light(PARTITION, run=partition, result=LightResult),
    light(PRIORS, run=priors, result=LightResult),
    light(TRAIN),  # its blocks are light: block_training.py
    light(FUSE, run=fuse, result=LightResult),
    light(REPORT, run=report, result=LightReportResult),
]
