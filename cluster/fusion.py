"""Fusion on an executor: the parts of the surface are worked on where there are hands, the driver writes the mesh."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from quoin.cluster.executor import Executor, Job, run_jobs
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.fencing import Attempt
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.fuse.config import VERSION, FuseConfig, FuseResult

WORKER_BASE_BYTES, WORKER_BYTES_PER_FACE = 1 << 30, 420  # of a worker; of a face of its part, as plans have it


def fuse_blocks(run: Run, config: FuseConfig, executor: Executor, report: Reporter) -> FuseResult:
    """The fuse stage; raises what stopped it. Where there are several workers they share the parts."""

    def work(run: Run, config: FuseConfig, report: Reporter) -> FuseResult:
        from quoin.stages.fuse.stage import fuse

        with executor.session() as n_workers:
            workers = _Workers(run, config, executor, report, n_workers) if n_workers > 1 else None
            return fuse(run, config, report, workers)

    return stage("fuse", needs=("train",), version=VERSION, result=FuseResult)(work)(run, config, report)


class _Workers:
    """The hands of an executor: see ``stages.fuse.stage.Hands``."""

    def __init__(self, run: Run, config: FuseConfig, executor: Executor, report: Reporter, n: int) -> None:
        self.n = n
        self._run, self._config, self._executor, self._report = run, config, executor, report

    def map_step(self, state: Any, step: str, args_per_chunk: Sequence[tuple]) -> list[Any]:
        """A job a part; raises the first error, once all have ended."""
        jobs = [
            Job(
                f"fuse/{step} {n + 1}/{len(args_per_chunk)}",
                functools.partial(_run_step, self._run.location, self._config, state, step, n, arguments),
                memory_bytes=WORKER_BASE_BYTES + WORKER_BYTES_PER_FACE * state.part_faces,
            )
            for n, arguments in enumerate(args_per_chunk)
        ]
        return run_jobs(self._executor, jobs, self._report)


def _run_step(
    run_location: str,
    config: FuseConfig,
    state: Any,
    step: str,
    n: int,
    arguments: tuple,
    report: Reporter,
    device: str,
    attempt: Attempt,
) -> Any:
    from quoin.stages.fuse.scratch import ScratchStore
    from quoin.stages.fuse.steps import FuseSteps  # open3d is loaded where the work is done

    del device, attempt  # what an earlier one leaves of a part is the same
    run = Run.open(run_location)
    return getattr(FuseSteps(run, config, report, state, ScratchStore(run.storage)), step)(n, *arguments)
