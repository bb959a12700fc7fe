"""The train stage: every block of the partition trained and committed by a worker each, then the stage itself."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import PartialResult, QuoinError
from quoin.pipeline.core.workers import Task, TaskContext
from quoin.pipeline.scene.blocks import Block, block_folder, read_partition
from quoin.pipeline.storage.disk import UNWRITABLE_ERRNOS, disk_error, retry, write_atomic
from quoin.pipeline.storage.lock import FENCING_TOKEN_FILE, fence
from quoin.pipeline.storage.object_store import storage_url
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import Cost, Stage, StageContext, Workload, brick_bytes
from quoin.stages.train.config import BlockResult, TrainConfig, TrainResult

TRACEBACK_FILE = "error.txt"

# On two cores, from a finished demo (40 photos of 0.48 megapixels, 2 blocks).
COMPILE_SECONDS = 10.0  # once a process
SECONDS_PER_BLOCK = 24.0  # of a block beside its steps: reading, the initial SDF, the bricks
RAYS_PER_S = 9500.0  # of the default method
CHECKPOINT_BYTES = 120 << 20  # and model, of a block


def train_blocks(context: StageContext, config: TrainConfig) -> TrainResult:
    """Train the blocks that are not committed yet, the costliest first, and commit each as it ends.

    Blocks that fail are ``failed_blocks`` of the result; the following stages use the others. PartialResult where no
    block could be trained.
    """
    run, report = context.run, context.report
    blocks = read_partition(run).blocks
    keys = {block.id: block_key(run, config, block) for block in blocks}
    results: dict[str, BlockResult] = {}
    failures: dict[str, Exception] = {}
    tasks = []
    for block in sorted(blocks, key=lambda block: -block.cost):
        done = run.manifest(f"train/{block.id}")
        if done is not None and done.key == keys[block.id]:
            report.log(f"train/{block.id}", "already done, kept")
            results[block.id] = run.result(f"train/{block.id}", BlockResult)
        else:
            tasks.append(block_task(run, config, block))

    with report.task("train", total=len(blocks), unit="blocks") as advance:
        advance(len(results))
        report.table("blocks", _rows(blocks, results, failures))
        for outcome in context.workers.map(train_block_attempt, tasks, report):
            name = outcome.task.name
            block_id = name.removeprefix("train/")
            if outcome.error is not None:
                failures[block_id] = outcome.error
                _save_traceback(run, block_id, outcome.error)
                report.log(name, f"failed: {_error_message(outcome.error)}", level="warning")
            else:
                result = results[block_id] = outcome.result
                (block_folder(run, block_id) / TRACEBACK_FILE).unlink(missing_ok=True)
                run.commit(name, keys[block_id], result, result.seconds, TRAIN.needs)
            advance(len(results))
            ended = [block for block in blocks if block.id == block_id]
            report.table("blocks", _rows(ended, results, failures))  # the others are known: there may be thousands
    missing = {block_id: _error_message(error) for block_id, error in failures.items()}
    if missing and not results:
        raise _partial_result(run, missing, len(blocks))
    done_blocks = [results[block.id] for block in blocks if block.id in results]
    return TrainResult(blocks=done_blocks, failed_blocks=missing)


def block_key(run: Run, config: TrainConfig, block: Block) -> str:
    """Content hash that decides whether a block must be trained again."""
    photos = [np.asarray(block.photo_index).tolist(), np.asarray(block.photo_weight).tolist()]
    box = [block.core.low, block.core.high, block.halo_bricks]
    return digest([TRAIN.key(run, config), block.id, box, photos])


def block_task(run: Run, config: TrainConfig, block: Block) -> Task:
    """The task of training a block, as workers get it."""
    return Task(
        f"train/{block.id}",
        (run, config, block.id),
        memory_bytes=block.memory_bytes,
        cost=block.cost,
        fence=functools.partial(fence_block, run, block.id),
        can_reduce_memory=True,
    )


def fence_block(run: Run, block_id: str, attempt_id: str) -> None:
    """Let only ``attempt_id`` write the block from here on, wherever the run lives."""
    folder = block_folder(run, block_id)
    fence(folder, attempt_id)
    run.storage.upload((folder.relative_to(run.path) / FENCING_TOKEN_FILE).as_posix())


def train_block_attempt(context: TaskContext, run: Run, config: TrainConfig, block_id: str) -> BlockResult:
    """One attempt at a block. While the storage does not respond it waits, then resumes from the block's checkpoint."""
    from quoin.stages.train.block_training import train_block  # imports torch

    def work() -> BlockResult:
        return train_block(run, config, context.report, block_id, context.device, context.attempt)

    try:
        return retry(work, run.path, lambda message: context.report.log(f"train/{block_id}", message, level="warning"))
    except OSError as error:
        if error.errno not in UNWRITABLE_ERRNOS:
            raise
        raise disk_error(error, error.filename or run.path) from error


def _save_traceback(run: Run, block_id: str, error: Exception) -> None:
    text = "".join(traceback.format_exception(error))
    with suppress(QuoinError):  # of a full disk, which must not stop the other blocks
        write_atomic(block_folder(run, block_id) / TRACEBACK_FILE, text.encode())


def _rows(
    blocks: list[Block], results: Mapping[str, BlockResult], failures: Mapping[str, Exception]
) -> list[dict[str, Any]]:
    rows = []
    for block in blocks:
        result = results.get(block.id)
        rows.append(
            {
                "block": block.id,
                "state": "done" if result else "failed" if block.id in failures else "to do",
                "photos": len(block.photo_index),
                "bricks": block.core.count,
                "planned_memory_bytes": block.memory_bytes,
                **(result.model_dump(mode="json", exclude={"block"}) if result else {}),
            }
        )
    return rows


def _error_message(error: Exception) -> str:
    return str(error) if isinstance(error, QuoinError) else f"{type(error).__name__}: {error}"


def missing_blocks(run: Run, result: Mapping[str, Any]) -> PartialResult | None:
    """The error for the blocks that a committed result of the stage lacks."""
    missing = result.get("failed_blocks")
    return _partial_result(run, missing, len(missing) + len(result["blocks"])) if missing else None


def _partial_result(run: Run, missing: Mapping[str, str], n_blocks: int) -> PartialResult:
    reasons = "; ".join(f"{block_id}: {why}" for block_id, why in missing.items())
    return PartialResult(
        f"{len(missing)} of {n_blocks} blocks could not be trained, the mesh has a hole in their place ({reasons})",
        where=run.location,
        hint="quoin resume tries them again; tracebacks are in work/blocks/<block>/error.txt",
    )


def has_checkpoints(run: Run) -> bool:
    """Whether training has begun, as far as can be told: checkpoints of other machines are not here."""
    return storage_url(run.location) is not None or any((run.path / "work/blocks").glob("*/checkpoint*"))


def estimate_train_cost(workload: Workload, config: TrainConfig) -> Cost:
    """Cost of training all blocks, ``workload.n_workers`` at a time, within the time budget where there is one."""
    blocks, n_workers = workload.blocks, workload.n_workers
    budget_s = 60.0 * (config.budget_minutes or math.inf)
    steps_s = min(config.steps * config.rays / RAYS_PER_S, budget_s / max(len(blocks), 1))  # of a block
    rounds = -(-len(blocks) // n_workers)
    largest = max((block.pixels for block in blocks), default=0)
    return Cost(
        seconds=COMPILE_SECONDS + rounds * (SECONDS_PER_BLOCK + steps_s),
        memory_bytes=sum(sorted(block.memory_bytes for block in blocks)[-n_workers:]),
        disk_bytes=workload.n_bricks * brick_bytes(workload.brick_size) + len(blocks) * CHECKPOINT_BYTES,
        note=f"{len(blocks):,} block{'s' if len(blocks) != 1 else ''}, {n_workers} at a time, "
        f"{largest / 1e6:,.0f} Mpx in the largest",
    )


TRAIN = Stage(
    name="train",
    needs=("partition", "priors"),
    version=5,
    config=TrainConfig,
    result=TrainResult,
    run=train_blocks,
    estimate=estimate_train_cost,
    is_begun=has_checkpoints,
    discard=lambda run: run.storage.remove("work/blocks"),
    partial_error=missing_blocks,
)
