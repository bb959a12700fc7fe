"""Poses on an executor: features, matches and undistorted photos are made where there are hands, the driver maps."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from quoin.cluster.executor import Executor, Job
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.fencing import Attempt
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.pose.camera_files import pose_cache_inputs
from quoin.stages.pose.config import NEEDS, VERSION, PoseConfig, PoseResult

MAX_LOCAL_PHOTOS = 32  # up to which nothing is gained by handing out
WORKER_MEMORY_BYTES = 2 << 30  # of a worker: SIFT of a large photo, or the descriptors of a portion


def estimate_poses(run: Run, config: PoseConfig, executor: Executor, report: Reporter) -> PoseResult:
    """The pose stage; raises what stopped it."""

    def work(run: Run, config: PoseConfig, report: Reporter) -> PoseResult:
        from quoin.stages.pose.stage import find_poses

        if len(read_photo_table(run, used_only=True)) <= MAX_LOCAL_PHOTOS:
            return find_poses(run, config, report, None)
        workers = _Workers(run, config, executor, report)
        try:
            if workers.n_workers == 1:
                workers.release()
            return find_poses(run, config, report, workers if workers.n_workers > 1 else None)
        finally:
            workers.release()

    return stage("pose", needs=NEEDS, version=VERSION, result=PoseResult, inputs=pose_cache_inputs)(work)(
        run, config, report
    )


class _Workers:
    """The hands of an executor: see ``stages.pose.hands.Hands``. Its workers are there until they may rest."""

    def __init__(self, run: Run, config: PoseConfig, executor: Executor, report: Reporter) -> None:
        self._run, self._config, self._executor, self._report = run, config, executor, report
        self._session: ExitStack | None = None
        self.n_workers = self._begin()

    def _begin(self) -> int:
        session = ExitStack()
        n = session.enter_context(self._executor.session())
        self._session = session
        return n

    def release(self) -> None:
        """Let the workers go, and the cluster: it may end meanwhile, and others may have what they took."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def map(self, step: str, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """A job a portion."""
        if self._session is None:
            try:
                self._begin()
            except QuoinError as error:  # the cluster has ended meanwhile
                from quoin.stages.pose.hands import NoWorkersError

                raise NoWorkersError(error.what, where=error.where, hint=error.hint) from error
        jobs = [
            Job(
                f"pose/{step} {n + 1}/{len(tasks)}",
                functools.partial(_run_step, self._run.location, self._config, step, task.args),
                memory_bytes=WORKER_MEMORY_BYTES,
                cost=task.cost,
            )
            for n, task in enumerate(tasks)
        ]
        number = {job.name: n for n, job in enumerate(jobs)}
        for outcome in self._executor.run(jobs, self._report):
            if outcome.error is not None:
                raise outcome.error
            yield number[outcome.job.name], outcome.result


def _run_step(
    run_location: str, config: PoseConfig, step: str, args: tuple, report: Reporter, device: str, attempt: Attempt
) -> Any:
    from quoin.stages.pose.matching_jobs import PoseSteps

    del device, attempt  # what an earlier one leaves of a portion is the same
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    return getattr(PoseSteps(Run.open(run_location), config, report, threads), step)(*args)
