"""Training all blocks of a run on an executor: what is committed is kept, each block is committed as it ends."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from quoin.cluster.executor import Executor, Job
from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import PartialResult, QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.blocks import Block, block_folder, read_partition
from quoin.pipeline.storage.atomic import UNWRITABLE_ERRNOS, disk_error, write_atomic
from quoin.pipeline.storage.fencing import FENCING_TOKEN_FILE, Attempt, fence
from quoin.pipeline.storage.retry import retry
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.train.config import VERSION, BlockResult, TrainConfig, TrainResult

NEEDS = ("partition", "priors")
TRACEBACK_FILE = "error.txt"


def train_blocks(run: Run, config: TrainConfig, executor: Executor, report: Reporter) -> TrainResult:
    """The train stage: every block of the partition trained and committed, then the stage itself.

    Blocks that fail are ``missing`` in its result, which is committed without them: what follows makes the most of the
    others. Called again, it tries them again, and all that followed is redone. PartialResult where no block is left.
    """

    def work(run: Run, config: TrainConfig, report: Reporter) -> TrainResult:
        return _train_missing(run, config, executor, report)

    previous = run.manifest("train")
    if previous is not None and previous.result.get("failed_blocks"):
        run.invalidate("train", parts=False)
    return stage("train", needs=NEEDS, version=VERSION, result=TrainResult)(work)(run, config, report)


def check_all_trained(run: Run) -> None:
    """PartialResult where blocks are missing of what train has committed."""
    done = run.manifest("train")
    missing = done.result.get("failed_blocks") if done else None
    if done and missing:
        raise _partial_result(run, missing, len(missing) + len(done.result["blocks"]))


def block_key(run: Run, config: TrainConfig, block: Block) -> str:
    """Content hash that decides whether a block must be trained again."""
    photos = [np.asarray(block.photo_index).tolist(), np.asarray(block.photo_weight).tolist()]
    box = [block.core.low, block.core.high, block.halo_bricks]
    return digest([run.key("train", config, NEEDS, VERSION), block.id, box, photos])


def _train_missing(run: Run, config: TrainConfig, executor: Executor, report: Reporter) -> TrainResult:
    blocks = read_partition(run).blocks
    longest_first = sorted(blocks, key=lambda block: -block.cost)
    keys = {block.id: block_key(run, config, block) for block in blocks}
    results: dict[str, BlockResult] = {}
    failures: dict[str, Exception] = {}
    jobs = []
    for block in longest_first:
        done = run.manifest(f"train/{block.id}")
        if done is not None and done.key == keys[block.id]:
            report.log(f"train/{block.id}", "already done, kept")
            results[block.id] = BlockResult.model_validate(done.result)
        else:
            jobs.append(_job(run, config, block))

    with report.task("train", total=len(blocks), unit="blocks") as advance:
        advance(len(results))
        report.table("blocks", _rows(blocks, results, failures))
        for outcome in executor.run(jobs, report):
            block_id = outcome.job.name.removeprefix("train/")
            if outcome.error is not None:
                failures[block_id] = outcome.error
                _save_traceback(run, block_id, outcome.error)
                report.log(outcome.job.name, f"failed: {_error_message(outcome.error)}", level="warning")
            else:
                result = results[block_id] = outcome.result
                (block_folder(run, block_id) / TRACEBACK_FILE).unlink(missing_ok=True)
                run.commit(outcome.job.name, keys[block_id], result, result.seconds, NEEDS)
            advance(len(results))
            ended = [block for block in blocks if block.id == block_id]
            report.table("blocks", _rows(ended, results, failures))  # the others are known: thousands may end
    missing = {block_id: _error_message(error) for block_id, error in failures.items()}
    if missing and not results:
        raise _partial_result(run, missing, len(blocks))
    done_blocks = [results[block.id] for block in blocks if block.id in results]
    return TrainResult(blocks=done_blocks, failed_blocks=missing)


def _job(run: Run, config: TrainConfig, block: Block) -> Job:
    return Job(
        f"train/{block.id}",
        functools.partial(_train_one, run.location, config, block.id),
        memory_bytes=block.memory_bytes,
        cost=block.cost,
        fence=functools.partial(_fence_block, run.location, block.id),
        can_reduce_memory=True,
    )


def _fence_block(run_location: str, block_id: str, attempt_id: str) -> None:
    run = Run.open(run_location)
    folder = block_folder(run, block_id)
    fence(folder, attempt_id)
    run.storage.upload((folder.relative_to(run.path) / FENCING_TOKEN_FILE).as_posix())


def _train_one(
    run_location: str, config: TrainConfig, block_id: str, report: Reporter, device: str, attempt: Attempt
) -> BlockResult:
    """One attempt at a block. While the storage does not answer it waits, then goes on from the block's checkpoint."""
    from quoin.stages.train.stage import train_block

    run = Run.open(run_location)

    def work() -> BlockResult:
        return train_block(run, config, report, block_id, device, attempt)

    try:
        return retry(work, run.path, lambda message: report.log(f"train/{block_id}", message, level="warning"))
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


def _partial_result(run: Run, missing: Mapping[str, str], n_blocks: int) -> PartialResult:
    reasons = "; ".join(f"{block_id}: {why}" for block_id, why in missing.items())
    return PartialResult(
        f"{len(missing)} of {n_blocks} blocks could not be trained, the mesh has a hole in their place ({reasons})",
        where=run.location,
        hint="quoin resume tries them again; tracebacks are in work/blocks/<block>/error.txt",
    )
