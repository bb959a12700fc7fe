"""Time, memory and disk of a run before it trains: the sum of the stages' estimates, and whether it fits this machine.

All is estimated from the partition's manifest, so that a plan of 5,000 blocks is made as fast as a plan of one.

Estimates are multiplied by the median ratio of seconds taken to seconds estimated: QUOIN_HOME/calibration.json holds
the last ratios by device and stage, from finished runs. There is no separate benchmark: the first finished run on a
device says more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from statistics import median
from typing import Any

from quoin.fields.device import device_name, gpu_memory_bytes, pick_device
from quoin.flows.pipeline import STAGES
from quoin.flows.settings import DEFAULT_METHOD, Settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import format_bytes
from quoin.pipeline.core.workers import Workers
from quoin.pipeline.storage.cache import home_folder
from quoin.pipeline.storage.disk import write_atomic
from quoin.pipeline.storage.object_store import storage_url
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import GIB, PROCESS_BYTES, Workload
from quoin.stages.partition.block_split import block_vram_bytes, machine_memory_bytes, min_memory_bytes
from quoin.stages.partition.config import BlockPlan, PartitionResult

CALIBRATION_FILE = "calibration.json"
MAX_RATIOS = 9  # of a stage: their median is robust to a run on a busy machine
MIN_SECONDS = 2.0  # estimated or taken; shorter times say nothing about a device

Ratios = dict[str, dict[str, list[float]]]  # by device and stage


def estimate_stages(
    run: Run, settings: Settings, factors: Mapping[str, float] | None = None, workers: int = 1
) -> list[dict[str, Any]]:
    """Rows of stage, seconds, memory_bytes, disk_bytes and note for the stages after partition.

    ``factors``: by stage, what this device takes relative to the estimate (see ``time_factors``).
    """
    partition = _partition_result(run)
    workload = Workload(
        partition.n_photos,
        partition.megapixels,
        partition.long_edge_px,
        settings.partition.brick_size,
        partition.blocks,
        workers,
    )
    rows = []
    for stage in STAGES:
        if stage.estimate is not None:
            cost = stage.estimate(workload, getattr(settings, stage.name))
            rows.append(
                {
                    "stage": stage.name,
                    "seconds": cost.seconds * (factors or {}).get(stage.name, 1.0),
                    "memory_bytes": cost.memory_bytes,
                    "disk_bytes": cost.disk_bytes,
                    "note": cost.note,
                }
            )
    return rows


def _partition_result(run: Run) -> PartitionResult:
    return run.result("partition", PartitionResult)


def check_workers(run: Run, settings: Settings, workers: Workers) -> None:
    """``check_resources`` for the device of this machine, or of a cluster, whose workers check theirs themselves."""
    if _has_blocks(run):
        check_resources(run, settings, pick_device(workers.device) if workers.address is None else None)


def check_resources(run: Run, settings: Settings, device: str | None) -> None:
    """QuoinError where a block needs more memory than ``device`` has, or the stages to come more disk than is free.

    ``device`` is None where blocks are trained on other machines.
    """
    if not _has_blocks(run):
        return
    partition = _partition_result(run)
    missing = [block for block in partition.blocks if run.manifest(f"train/{block.id}") is None]
    if missing and device is not None:
        photo_pixels = 1e6 * partition.megapixels / max(partition.n_photos, 1)
        min_bytes = min_memory_bytes(photo_pixels, settings.partition.brick_size)
        _check_memory(run, max(missing, key=lambda block: block.memory_bytes), min_bytes, device)
    if storage_url(run.location) is not None:  # the stages write there
        return
    to_come = [row for row in estimate_stages(run, settings) if run.manifest(row["stage"]) is None]
    needed_bytes, free = sum(row["disk_bytes"] for row in to_come), shutil.disk_usage(run.path).free
    if needed_bytes > free:
        raise QuoinError(
            f"This needs about {format_bytes(needed_bytes)} more disk, and {format_bytes(free)} are free",
            where=run.path,
            hint="free some space, or choose an --out on another disk",
        )


def _check_memory(run: Run, block: BlockPlan, min_bytes: int, device: str) -> None:
    needed_bytes, have, what, host_bytes = block.memory_bytes, machine_memory_bytes(), "this machine", 0
    if device.startswith("cuda"):
        needed_bytes, have = block_vram_bytes(block.pixels), gpu_memory_bytes()
        host_bytes = PROCESS_BYTES  # of what --memory means, that is not on the GPU
        what = device_name(device)
    if needed_bytes > have:
        smaller = 0.6 * have + host_bytes
        hint = (
            f"give --memory {smaller / GIB:.1f} for smaller blocks" if smaller > min_bytes else "use one that has more"
        )
        raise QuoinError(
            f"Block {block.id} needs {format_bytes(needed_bytes)} to train, {what} has {format_bytes(have)}",
            where=run.path,
            hint=hint,
        )


def stages_in_progress(run: Run) -> set[str]:
    """Names of the stages with unfinished work of an earlier session: what they take from here on is not the whole."""
    return {stage.name for stage in STAGES if run.manifest(stage.name) is None and stage.is_begun(run)}


def record_durations(
    run: Run, settings: Settings, device: str, since: float, in_progress: Collection[str] = ()
) -> None:
    """Record for later plans what this run's stages took on the device.

    Left out are stages that were committed before ``since`` or ``in_progress`` then, and training by a method that
    estimates do not model.
    """
    if _has_blocks(run):
        planned = {row["stage"]: row["seconds"] for row in estimate_stages(run, settings)}
        unmodeled = {"train"} if settings.train.method != DEFAULT_METHOD or settings.train.budget_minutes else set()
        left_out = {*in_progress, *unmodeled}
        taken = seconds_taken(run, since)
        record_ratios(device, planned, {stage: s for stage, s in taken.items() if stage not in left_out})


def _has_blocks(run: Run) -> bool:
    """Whether the run is partitioned into blocks."""
    done = run.manifest("partition")
    return done is not None and bool(done.result.get("blocks"))


def time_factors(device: str) -> dict[str, float]:
    """By stage, the factor from estimated seconds to those on the device; without stages that never ran there."""
    return {stage: median(ratios) for stage, ratios in _read_ratios().get(device_name(device), {}).items() if ratios}


def record_ratios(device: str, planned: Mapping[str, float], taken: Mapping[str, float]) -> None:
    """Record the ratios of ``taken`` to ``planned`` seconds (without factors) of stages; skipped where not writable."""
    usable = {stage: s for stage, s in taken.items() if min(s, planned.get(stage, 0.0)) >= MIN_SECONDS}
    if not usable:
        return
    all_ratios = _read_ratios()
    device_ratios = all_ratios.setdefault(device_name(device), {})
    for stage, seconds in usable.items():
        device_ratios[stage] = [*device_ratios.get(stage, []), round(seconds / planned[stage], 4)][-MAX_RATIOS:]
    path = home_folder() / CALIBRATION_FILE
    with suppress(OSError, QuoinError):  # a home that is not writable: estimates stay rough
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(all_ratios, indent=1, sort_keys=True).encode())


def seconds_taken(run: Run, since: float) -> dict[str, float]:
    """Seconds of stages that were committed after ``since`` (seconds since the epoch)."""
    recent = {name: m.seconds for name, m in run.record.manifests.items() if m.committed_at >= since}
    blocks = [name for name in run.record.manifests if name.startswith("train/")]
    if any(name not in recent for name in blocks):  # some blocks were trained before: these are not all
        recent.pop("train", None)
    return {name: seconds for name, seconds in recent.items() if "/" not in name}


def _read_ratios() -> Ratios:
    try:
        stored = json.loads((home_folder() / CALIBRATION_FILE).read_text(encoding="utf-8"))
        return {
            str(device): {str(stage): [float(r) for r in ratios if r > 0] for stage, ratios in stages.items()}
            for device, stages in stored.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):  # missing, or damaged
        return {}
