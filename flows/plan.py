"""``quoin plan``: what a run would take, told before anything is spent on it."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from flows.session import settings_of
from flows.terminal import duration, size
from pipeline import scene
from pipeline.config import build
from pipeline.run import Run
from stages.partition.config import PartitionResult
from stages.partition.plan import TRAIN_SECONDS, plan_rows
from stages.train.config import TrainConfig


def print_plan(run: Run) -> None:
    """Blocks, then memory, disk and time of the stages to come, for a run that is partitioned."""
    result = PartitionResult.model_validate(run.require("partition").result)
    console = Console(width=110)
    blocks = Table("block", "photos", "points", "share of work", "memory", box=box.SIMPLE_HEAD)
    for block in result.blocks:
        share = f"{block.cost / max(sum(b.cost for b in result.blocks), 1e-9):.0%}"
        blocks.add_row(block.id, str(block.n_photos), f"{block.n_points:,}", share, size(block.memory_bytes))
    console.print(blocks)

    rows = stage_rows(run)
    stages = Table("stage", "time", "memory", "disk", "", box=box.SIMPLE_HEAD)
    for row in rows:
        stages.add_row(
            row["stage"], duration(row["seconds"]), size(row["memory_bytes"]), size(row["disk_bytes"]), row["note"]
        )
    console.print(stages)
    total, most = sum(row["seconds"] for row in rows), max(row["memory_bytes"] for row in rows)
    disk = sum(row["disk_bytes"] for row in rows)
    print(f"  about {duration(total)} on two CPU cores, {size(most)} of memory at most, {size(disk)} more disk")
    print(f"  go on with: quoin resume {run.home}")


def stage_rows(run: Run) -> list[dict]:
    """Predicted memory, disk and seconds per stage to come, for two CPU cores."""
    partition, posed = scene.read_partition(run), scene.read_posed(run)
    pixels = np.prod(posed.sizes, axis=1)
    return plan_rows(
        n_photos=len(posed),
        pixels=int(pixels.sum()),
        n_bricks=sum(block.notes["n_bricks"] for block in partition.blocks),
        brick_size=partition.lattice.brick_size,
        block_memory=[block.memory_bytes for block in partition.blocks],
        block_pixels=[int((pixels[block.photo_index] // 4**block.photo_level).sum()) for block in partition.blocks],
        train_seconds=TRAIN_SECONDS * relative_effort(settings_of(run).train),
    )


def relative_effort(config: TrainConfig) -> float:
    """Work of training a block, 1 for the default configuration."""
    usual = build(TrainConfig, {})
    return (config.steps * config.rays) / (usual.steps * usual.rays)
