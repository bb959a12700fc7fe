"""Training all blocks of a run on an executor: what is committed is kept, each block is committed as it ends."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.executor import Executor, Job
from pipeline import scene
from pipeline.config import digest
from pipeline.errors import PartialResult, QuoinError
from pipeline.progress import Reporter
from pipeline.run import Run, stage, write_atomic
from stages.train.config import VERSION, BlockResult, TrainConfig, TrainResult

NEEDS = ("partition", "priors")


def train_blocks(run: Run, config: TrainConfig, executor: Executor, report: Reporter) -> TrainResult:
    """The train stage: every block of the partition trained and committed, then the stage itself.

    Raises PartialResult where blocks failed, after all others are done and committed.
    """

    def work(run: Run, config: TrainConfig, report: Reporter) -> TrainResult:
        return _train_missing(run, config, executor, report)

    return stage("train", needs=NEEDS, version=VERSION, result=TrainResult)(work)(run, config, report)


def block_key(run: Run, config: TrainConfig, block: scene.Block) -> str:
    """Content hash that decides whether a block must be trained again."""
    photos = [np.asarray(block.photo_index).tolist(), np.asarray(block.photo_weight).tolist()]
    box = [block.core.low, block.core.high, block.halo_bricks]
    return digest([run.key("train", config, NEEDS, VERSION), block.id, box, photos])


def _train_missing(run: Run, config: TrainConfig, executor: Executor, report: Reporter) -> TrainResult:
    blocks = scene.read_partition(run).blocks
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
            work = functools.partial(_train_one, run.home, config, block.id)
            jobs.append(Job(f"train/{block.id}", work, block.memory_bytes))

    with report.task("train", total=len(blocks), unit="blocks") as advance:
        advance(len(results))
        report.table("blocks", _rows(blocks, results, failures))
        for outcome in executor.run(jobs, report):
            block_id = outcome.job.name.removeprefix("train/")
            if outcome.error is not None:
                failures[block_id] = outcome.error
                _keep_traceback(run, block_id, outcome.error)
                report.log(outcome.job.name, f"failed: {_sentence(outcome.error)}", level="warning")
            else:
                result = results[block_id] = outcome.result
                run.commit(outcome.job.name, keys[block_id], result, result.seconds, NEEDS)
            advance(len(results))
            report.table("blocks", _rows(blocks, results, failures))
    if failures:
        raise _partial(run, failures, len(blocks))
    return TrainResult(blocks=[results[block.id] for block in blocks])


def _train_one(run_place: str, config: TrainConfig, block_id: str, report: Reporter, device: str) -> BlockResult:
    from stages.train.run import train_block

    return train_block(Run.open(run_place), config, report, block_id, device)


def _keep_traceback(run: Run, block_id: str, error: Exception) -> None:
    text = "".join(traceback.format_exception(error))
    write_atomic(scene.block_folder(run, block_id) / "error.txt", text.encode())


def _rows(
    blocks: list[scene.Block], results: Mapping[str, BlockResult], failures: Mapping[str, Exception]
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


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, QuoinError) else f"{type(error).__name__}: {error}"


def _partial(run: Run, failures: Mapping[str, Exception], n_blocks: int) -> PartialResult:
    reasons = "; ".join(f"{block_id}: {_sentence(error)}" for block_id, error in failures.items())
    return PartialResult(
        f"{len(failures)} of {n_blocks} blocks could not be trained, the others are kept ({reasons})",
        where=run.home,
        do="quoin resume tries them again; tracebacks are in work/blocks/<block>/error.txt",
    )
