"""What a partitioned run will take on this device, and whether it fits: told before anything is spent on it.

All that is asked of the run is the partition's manifest, so that five thousand blocks are as quickly planned as one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from quoin.flows import calibration
from quoin.flows.settings import DEFAULT_METHOD, Settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import format_bytes
from quoin.pipeline.storage.object_store import storage_url
from quoin.pipeline.storage.run import Run

if TYPE_CHECKING:
    from quoin.stages.partition.config import BlockPlan, PartitionResult


def estimate_stages(
    run: Run, settings: Settings, factors: Mapping[str, float] | None = None, workers: int = 1
) -> list[dict]:
    """Predicted memory, disk and seconds per stage to come; ``factors`` are those of ``calibration``."""
    from quoin.stages.partition.config import PartitionResult
    from quoin.stages.partition.cost import estimate_stage_costs

    partition = PartitionResult.model_validate(run.require("partition").result)
    return estimate_stage_costs(
        n_photos=partition.n_photos,
        stereo_mpx=_stereo_megapixels(partition, settings.priors.stereo_edge_px) * settings.priors.sources / 8,
        brick_size=settings.partition.brick_size,
        blocks=partition.blocks,
        rays=settings.train.steps * settings.train.rays,
        budget_s=60.0 * (settings.train.budget_minutes or math.inf),
        part_faces=settings.fuse.part_faces,
        sky=settings.priors.sky,
        factors=factors,
        workers=workers,
    )


def _stereo_megapixels(partition: PartitionResult, edge_px: int) -> float:
    """Megapixels of all photos halved until they are no longer than ``edge_px``; none where that is 0."""
    if not edge_px:
        return 0.0
    return partition.megapixels / 4 ** math.ceil(math.log2(max(partition.long_edge_px / edge_px, 1.0)))


def check_resources(run: Run, settings: Settings, device: str | None) -> None:
    """QuoinError where a block needs more memory than the device has, or the stages to come more disk than the run has.

    ``device`` is None where blocks are trained on other machines, each of which tells what it has.
    """
    if not _has_blocks(run):
        return
    from quoin.stages.partition.config import PartitionResult
    from quoin.stages.partition.cost import min_memory_bytes

    partition = PartitionResult.model_validate(run.require("partition").result)
    missing = [block for block in partition.blocks if run.manifest(f"train/{block.id}") is None]
    if missing and device is not None:
        photo_pixels = 1e6 * partition.megapixels / max(partition.n_photos, 1)
        min_bytes = min_memory_bytes(photo_pixels, settings.partition.brick_size)
        _check_memory(run, max(missing, key=lambda block: block.memory_bytes), min_bytes, device)
    if storage_url(run.location) is not None:  # what the stages leave goes there
        return
    to_come = [row for row in estimate_stages(run, settings) if run.manifest(row["stage"]) is None]
    needed_bytes, free = sum(row["disk_bytes"] for row in to_come), shutil.disk_usage(run.path).free
    if needed_bytes > free:
        raise QuoinError(
            f"This needs about {format_bytes(needed_bytes)} more disk, and {format_bytes(free)} are free",
            where=run.path,
            hint="free some space, or choose an --out on another disk",
        )


def _check_memory(run: Run, block: BlockPlan, least_bytes: int, device: str) -> None:
    from quoin.stages.partition.cost import GIB, PROCESS_BYTES, block_vram_bytes, machine_memory_bytes

    needed_bytes, have, what, host_bytes = block.memory_bytes, machine_memory_bytes(), "this machine", 0
    if device.startswith("cuda"):
        import torch

        needed_bytes, have = block_vram_bytes(block.pixels), torch.cuda.get_device_properties(0).total_memory
        host_bytes = PROCESS_BYTES  # of what --memory means, that is not on the GPU
        what = torch.cuda.get_device_name()
    if needed_bytes > have:
        smaller = 0.6 * have + host_bytes
        hint = (
            f"give --memory {smaller / GIB:.1f} for smaller blocks"
            if smaller > least_bytes
            else "use one that has more"
        )
        raise QuoinError(
            f"Block {block.id} needs {format_bytes(needed_bytes)} to train, {what} has {format_bytes(have)}",
            where=run.path,
            hint=hint,
        )


def stages_in_progress(run: Run) -> set[str]:
    """Stages that an earlier session has begun: what is left of them is not the whole."""
    elsewhere = storage_url(run.location) is not None  # checkpoints of other machines are not here
    has_output = {
        "priors": "priors" in run.scene,
        "train": elsewhere or any((run.path / "work/blocks").glob("*/checkpoint*")),
    }
    return {stage for stage, exists in has_output.items() if exists and run.manifest(stage) is None}


def record_durations(
    run: Run, settings: Settings, device: str, since: float, in_progress: Collection[str] = ()
) -> None:
    """Remember what this run's stages took on the device.

    Those committed before ``since`` say nothing, nor do those that were ``in_progress`` done then, nor training by a
    method that plans know nothing of.
    """
    if _has_blocks(run):
        planned = {row["stage"]: row["seconds"] for row in estimate_stages(run, settings)}
        unmodeled = {"train"} if settings.train.method != DEFAULT_METHOD or settings.train.budget_minutes else set()
        left_out = {*in_progress, *unmodeled}
        taken = calibration.seconds_taken(run, since)
        calibration.record_ratios(device, planned, {stage: s for stage, s in taken.items() if stage not in left_out})


def _has_blocks(run: Run) -> bool:
    """Whether the run has blocks that were planned."""
    done = run.manifest("partition")
    return done is not None and bool(done.result.get("blocks"))
