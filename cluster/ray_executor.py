"""Jobs on Ray actors, on this machine or on a cluster: the longest first, events streamed home, lost work taken up.

The driver replaces a dead actor itself instead of asking Ray to (``max_restarts``): so every new attempt is seen,
counted and told, whatever killed the old one (a crash, the memory monitor, a lost node), and a half-lost actor is
killed before its work starts again elsewhere. A job goes on from its own checkpoint.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from quoin.cluster.actor_pool import ActorHandle, ActorPool, JobAttempt
from quoin.cluster.connection import HeadMonitor, connect_ray
from quoin.cluster.executor import Device, Job, Outcome
from quoin.cluster.failures import OOM_SUSPECT_DEATHS, Failure, classify, retries_exhausted
from quoin.cluster.resources import plan_resources
from quoin.cluster.stragglers import Stragglers
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter

POLL_SECONDS = 1.0
UNLIMITED_JOBS = 1_000_000  # jobs, more than there are workers
NO_WORKER_WARNING_SECONDS = 60.0  # without a single worker, until that is told


class RayExecutor:
    """Jobs on Ray actors, ``workers`` at a time (default: one per GPU, else one per four cores) sharing the cores.

    ``address`` names a running cluster (``auto``, ``host:port``); without one, a cluster of this machine is started on
    loopback and stopped at the end. A job whose worker is lost is started again up to ``retries`` times; one whose
    worker was told to stop, as often as that happens. ``gpu_share``: part of a GPU that a worker takes, and of its
    memory: 0.5 puts two on each.
    """

    def __init__(
        self,
        device: Device = "auto",
        address: str | None = None,
        workers: int | None = None,
        retries: int = 3,
        gpu_share: float = 1.0,
    ) -> None:
        if not 0 < gpu_share <= 1:
            raise QuoinError("A worker takes a part of one GPU", where=gpu_share, hint="give more than 0 and at most 1")
        self.device, self.address, self.workers, self.retries = device, address, workers, retries
        self.gpu_share = gpu_share
        self._in_session = False
        self._pool: ActorPool | None = None  # who has done the last jobs of a session

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        if not jobs:
            return
        with connect_ray(self.address) as ray:
            resources = plan_resources(ray, self.device, len(jobs), self.workers, self.gpu_share, self.address)
            n_jobs = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
            n_workers = "1 worker" if resources.n_workers == 1 else f"{resources.n_workers} workers at a time"
            report.log("ray", f"{n_jobs} on {n_workers}, {resources.device}")
            reused = self._pool if self._pool is not None and self._pool.resources == resources else None
            if reused is None:
                self._stop_pool()
            pool, self._pool = reused or ActorPool(ray, resources), None
            pool.report, pool.keep_idle = report, self._in_session
            done = False
            try:
                yield from _Scheduler(ray, jobs, pool, self.retries, report).outcomes()
                done = True
            finally:
                if done and self._in_session:
                    self._pool = pool
                else:
                    pool.stop()

    @contextmanager
    def session(self) -> Iterator[int]:
        """Inside, workers stay for the next ``run``, where that shares the cluster in the same way."""
        with connect_ray(self.address) as ray:
            self._in_session = True
            try:
                yield plan_resources(
                    ray, self.device, UNLIMITED_JOBS, self.workers, self.gpu_share, self.address
                ).n_workers
            finally:
                self._in_session = False
                self._stop_pool()

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.stop()
        self._pool = None


class _Scheduler:
    """One ``run``: what waits, who works, and what becomes of what comes home."""

    def __init__(self, ray: Any, jobs: Sequence[Job], pool: ActorPool, retries: int, report: Reporter) -> None:
        self.ray, self.retries, self.report, self.pool = ray, retries, report, pool
        self.waiting = deque(JobAttempt(job) for job in jobs)
        self.stragglers = Stragglers(report)
        self.head = HeadMonitor(ray)

    def outcomes(self) -> Iterator[Outcome]:
        polled, had_workers = 0.0, time.monotonic()
        try:
            while self.waiting or self.pool.busy:
                self.pool.start(self.waiting)
                self.pool.assign(self.waiting)
                for worker in self.pool.wait(POLL_SECONDS):
                    if worker.current_attempt is None:
                        self.pool.on_ready(worker)
                    else:
                        outcome = self._end(worker, worker.current_attempt)
                        if outcome is not None:
                            yield outcome
                now = time.monotonic()
                if now - polled >= POLL_SECONDS:
                    polled = now
                    for worker in self.pool.busy:
                        self.pool.forward_events(worker)
                    self.head.check()
                    if not self.waiting:
                        self.stragglers.report_slow(
                            [w.current_attempt for w in self.pool.busy if w.current_attempt], self.pool.n_idle
                        )
                    if self.pool.ready:
                        had_workers = now
                    elif now - had_workers > NO_WORKER_WARNING_SECONDS:
                        had_workers = now
                        why = "no worker can start: the cluster has nothing free, or not enough of it in one machine"
                        self.report.log("ray", why, level="warning")
        except SystemError as error:  # what Ray's wait makes of that which a signal's handler raises meanwhile
            raised = error.__cause__
            raise raised if raised is not None and not isinstance(raised, Exception) else error from None

    def _end(self, worker: ActorHandle, attempt: JobAttempt) -> Outcome | None:
        """What became of the job of ``worker``: its outcome, or None where it waits for another attempt."""
        try:
            result = self.pool.collect_result(worker)
        except self.ray.exceptions.RayError as error:
            failure = classify(error)
        else:
            self.stragglers.record(attempt)
            self.pool.release(worker, broken=False)
            return Outcome(attempt.job, result)
        self.pool.release(worker, broken=not _is_refusal(failure))
        if failure.kind == "error":
            return Outcome(attempt.job, error=failure.error)
        next_attempt = self._next_attempt(attempt, failure)
        if next_attempt is None:
            last = (
                failure.error
                if failure.kind == "memory" and not _is_ray_error(failure)
                else retries_exhausted(failure, attempt.number)
            )
            return Outcome(attempt.job, error=last)
        self.waiting.appendleft(next_attempt)
        return None

    def _next_attempt(self, attempt: JobAttempt, failure: Failure) -> JobAttempt | None:
        """The attempt after one that was lost to ``failure``; None where there have been enough."""
        previous, job = attempt.attempt, attempt.job
        if failure.kind == "stopped":
            self.report.log(job.name, "its worker was told to stop, going on elsewhere", level="warning")
            return JobAttempt(job, previous, attempt.number, attempt.n_silent_deaths)
        if attempt.number > self.retries:
            return None
        n_silent_deaths = attempt.n_silent_deaths + 1 if failure.kind == "died" else 0
        why = failure.reason if failure.kind == "memory" else ""
        if n_silent_deaths >= OOM_SUSPECT_DEATHS and job.can_reduce_memory:
            why = f"its worker died {n_silent_deaths} times without a word, as where the system kills for memory"
        if why and (
            job.can_reduce_memory or not _is_ray_error(failure)
        ):  # Ray kills whom it likes: who cannot do with less tries again
            reduced = job.with_less_memory(previous, why, self.report)
            return None if reduced is None else JobAttempt(job, reduced, attempt.number + 1, n_silent_deaths)
        self.report.log(job.name, f"its worker was lost, starting again: {failure.reason}", level="warning")
        return JobAttempt(job, previous, attempt.number + 1, n_silent_deaths)


def _is_refusal(failure: Failure) -> bool:
    """Whether a job only said no: whatever else it may have left of its process, nobody else gets."""
    return failure.kind == "error" and isinstance(failure.error, QuoinError)


def _is_ray_error(failure: Failure) -> bool:
    return type(failure.error).__module__.startswith("ray.")
