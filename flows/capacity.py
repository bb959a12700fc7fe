"""What a partitioned run will take on this device, and whether it fits: told before anything is spent on it.

All that is asked of the run is the partition's manifest, so that five thousand blocks are as quickly planned as one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from quoin.flows import calibration
from quoin.flows.cli.terminal import size
from quoin.flows.settings import DEFAULT_METHOD, Settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.object_store import url_of
from quoin.pipeline.storage.run import Run

if TYPE_CHECKING:
    from quoin.stages.partition.config import BlockFacts, PartitionResult


def stage_rows(
    run: Run, settings: Settings, factors: Mapping[str, float] | None = None, workers: int = 1
) -> list[dict]:
    """Predicted memory, disk and seconds per stage to come; ``factors`` are those of ``calibration``."""
    from quoin.stages.partition.config import PartitionResult
    from quoin.stages.partition.cost import plan_rows

    found = PartitionResult.model_validate(run.require("partition").result)
    return plan_rows(
        n_photos=found.n_photos,
        stereo_mpx=_compared_mpx(found, settings.priors.stereo_edge_px) * settings.priors.sources / 8,
        brick_size=settings.partition.brick_size,
        blocks=found.blocks,
        rays=settings.train.steps * settings.train.rays,
        budget_s=60.0 * (settings.train.budget_minutes or math.inf),
        part_faces=settings.fuse.part_faces,
        sky=settings.priors.sky,
        factors=factors,
        workers=workers,
    )


def _compared_mpx(found: PartitionResult, edge_px: int) -> float:
    """Megapixels of all photos halved until they are no longer than ``edge_px``; none where that is 0."""
    if not edge_px:
        return 0.0
    return found.megapixels / 4 ** math.ceil(math.log2(max(found.long_edge_px / edge_px, 1.0)))


def ensure_fits(run: Run, settings: Settings, device: str | None) -> None:
    """QuoinError where a block needs more memory than the device has, or the stages to come more disk than the run has.

    ``device`` is None where blocks are trained on other machines, each of which tells what it has.
    """
    if not _listed(run):
        return
    from quoin.stages.partition.config import PartitionResult
    from quoin.stages.partition.cost import least_memory_bytes

    found = PartitionResult.model_validate(run.require("partition").result)
    missing = [block for block in found.blocks if run.manifest(f"train/{block.id}") is None]
    if missing and device is not None:
        photo_pixels = 1e6 * found.megapixels / max(found.n_photos, 1)
        least = least_memory_bytes(photo_pixels, settings.partition.brick_size)
        _ensure_memory(run, max(missing, key=lambda block: block.memory_bytes), least, device)
    if url_of(run.home) is not None:  # what the stages leave goes there
        return
    to_come = [row for row in stage_rows(run, settings) if run.manifest(row["stage"]) is None]
    needed, free = sum(row["disk_bytes"] for row in to_come), shutil.disk_usage(run.path).free
    if needed > free:
        raise QuoinError(
            f"This needs about {size(needed)} more disk, and {size(free)} are free",
            where=run.path,
            do="free some space, or choose an --out on another disk",
        )


def _ensure_memory(run: Run, block: BlockFacts, least_bytes: int, device: str) -> None:
    from quoin.stages.partition.cost import GIB, PROCESS_BYTES, block_vram_bytes, machine_memory_bytes

    needed, have, what, beside = block.memory_bytes, machine_memory_bytes(), "this machine", 0
    if device.startswith("cuda"):
        import torch

        needed, have = block_vram_bytes(block.pixels), torch.cuda.get_device_properties(0).total_memory
        beside = PROCESS_BYTES  # of what --memory means, that is not on the GPU
        what = torch.cuda.get_device_name()
    if needed > have:
        smaller = 0.6 * have + beside
        do = (
            f"give --memory {smaller / GIB:.1f} for smaller blocks"
            if smaller > least_bytes
            else "use one that has more"
        )
        raise QuoinError(
            f"Block {block.id} needs {size(needed)} to train, {what} has {size(have)}",
            where=run.path,
            do=do,
        )


def half_done(run: Run) -> set[str]:
    """Stages that an earlier session has begun: what is left of them is not the whole."""
    elsewhere = url_of(run.home) is not None  # checkpoints of other machines are not here
    begun = {
        "priors": "priors" in run.scene,
        "train": elsewhere or any((run.path / "work/blocks").glob("*/checkpoint*")),
    }
    return {stage for stage, there in begun.items() if there and run.manifest(stage) is None}


def learn(run: Run, settings: Settings, device: str, since: float, half: Collection[str] = ()) -> None:
    """Remember what this run's stages took on the device.

    Those committed before ``since`` say nothing, nor do those that were ``half`` done then, nor training by a method
    that plans know nothing of.
    """
    if _listed(run):
        planned = {row["stage"]: row["seconds"] for row in stage_rows(run, settings)}
        strange = {"train"} if settings.train.method != DEFAULT_METHOD or settings.train.budget_minutes else set()
        left_out = {*half, *strange}
        taken = calibration.seconds_taken(run, since)
        calibration.learn(device, planned, {stage: s for stage, s in taken.items() if stage not in left_out})


def _listed(run: Run) -> bool:
    """Whether the run has blocks that were planned."""
    done = run.manifest("partition")
    return done is not None and bool(done.result.get("blocks"))
