"""Runs tasks on Ray actors: streams their events to the driver, notices a lost worker, gives its task to another one.

The driver itself replaces a dead actor instead of asking Ray to (``max_restarts``), so that it counts and logs every
attempt, whatever ended the one before (a crash, the memory monitor, a lost node), and an actor on a machine that does
not respond is killed before its task starts again elsewhere. Tasks resume from their own checkpoints.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from quoin.cluster.actor_pool import ActorHandle, ActorPool, TaskAttempt
from quoin.cluster.connection import HeadMonitor, connect_ray
from quoin.cluster.failures import OOM_SUSPECT_DEATHS, Failure, classify, retries_exhausted
from quoin.cluster.resources import plan_resources
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import timecode
from quoin.pipeline.core.workers import Device, Outcome, Step, Task

POLL_SECONDS = 1.0
UNLIMITED_TASKS = 1_000_000  # more than there are workers
NO_WORKER_WARNING_SECONDS = 60.0  # without a single worker, until that is logged

STRAGGLER_FACTOR = 2.0  # times the expected duration


class RayWorkers:
    """Up to ``workers`` Ray actors (default: one per GPU, else one per four cores) that share the cores.

    ``address`` names a running cluster (``auto``, ``host:port``); without one, a cluster of this machine is started on
    loopback and stopped at the end. A task whose worker is lost is started again up to ``retries`` times; a task whose
    worker got SIGTERM, as often as that happens. ``gpu_share``: part of a GPU, and of its memory, that a worker takes;
    0.5 puts two on each.
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
            raise QuoinError("Invalid share of a GPU", where=gpu_share, hint="give more than 0 and at most 1")
        self.device, self.address, self.workers, self.retries = device, address, workers, retries
        self.gpu_share = gpu_share
        self._in_session = False
        self._pool: ActorPool | None = None  # of the last tasks of a session

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        if not tasks:
            return
        with connect_ray(self.address) as ray:
            resources = plan_resources(ray, self.device, len(tasks), self.workers, self.gpu_share, self.address)
            n_tasks = "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"
            n_workers = "1 worker" if resources.n_workers == 1 else f"{resources.n_workers} workers at a time"
            report.log("ray", f"{n_tasks} on {n_workers}, {resources.device}")
            reused = self._pool if self._pool is not None and self._pool.resources == resources else None
            if reused is None:
                self._stop_pool()
            pool, self._pool = reused or ActorPool(ray, resources), None
            pool.report, pool.keep_idle = report, self._in_session
            done = False
            try:
                yield from _Scheduler(ray, step, tasks, pool, self.retries, report).outcomes()
                done = True
            finally:
                if done and self._in_session:
                    self._pool = pool
                else:
                    pool.stop()

    @contextmanager
    def session(self) -> Iterator[int]:
        """Inside, actors stay for the next ``map``, where that shares the cluster in the same way."""
        with connect_ray(self.address) as ray:
            self._in_session = True
            try:
                yield plan_resources(
                    ray, self.device, UNLIMITED_TASKS, self.workers, self.gpu_share, self.address
                ).n_workers
            finally:
                self._in_session = False
                self._stop_pool()

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.stop()
        self._pool = None


class _Scheduler:
    """One ``map``: which tasks wait, which actors work, and what follows from how a task ended."""

    def __init__(
        self, ray: Any, step: Step, tasks: Sequence[Task], pool: ActorPool, retries: int, report: Reporter
    ) -> None:
        self.ray, self.retries, self.report, self.pool = ray, retries, report, pool
        self.waiting = deque(TaskAttempt(step, task) for task in tasks)
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
                        why = "no worker can start: no machine of the cluster has enough cores, memory or GPUs free"
                        self.report.log("ray", why, level="warning")
        except SystemError as error:  # what Ray's wait makes of that which a signal's handler raises meanwhile
            raised = error.__cause__
            raise raised if raised is not None and not isinstance(raised, Exception) else error from None

    def _end(self, worker: ActorHandle, attempt: TaskAttempt) -> Outcome | None:
        """The outcome of the task of ``worker``; None where it waits for another attempt."""
        try:
            result = self.pool.collect_result(worker)
        except self.ray.exceptions.RayError as error:
            failure = classify(error)
        else:
            self.stragglers.record(attempt)
            self.pool.release(worker, broken=False)
            return Outcome(attempt.task, result)
        self.pool.release(worker, broken=not _is_refusal(failure))
        if failure.kind == "error":
            return Outcome(attempt.task, error=failure.error)
        next_attempt = self._next_attempt(attempt, failure)
        if next_attempt is None:
            last = (
                failure.error
                if failure.kind == "memory" and not _is_ray_error(failure)
                else retries_exhausted(failure, attempt.number)
            )
            return Outcome(attempt.task, error=last)
        self.waiting.appendleft(next_attempt)
        return None

    def _next_attempt(self, attempt: TaskAttempt, failure: Failure) -> TaskAttempt | None:
        """The attempt after one that was lost to ``failure``; None where there have been enough."""
        previous, task = attempt.attempt, attempt.task
        if failure.kind == "stopped":
            self.report.log(task.name, "its worker got SIGTERM, resuming elsewhere", level="warning")
            return replace(attempt)
        if attempt.number > self.retries:
            return None
        n_silent_deaths = attempt.n_silent_deaths + 1 if failure.kind == "died" else 0
        again = replace(attempt, number=attempt.number + 1, n_silent_deaths=n_silent_deaths)
        why = failure.reason if failure.kind == "memory" else ""
        if n_silent_deaths >= OOM_SUSPECT_DEATHS and task.can_reduce_memory:
            why = f"its worker died {n_silent_deaths} times for no reason given, as where the system runs out of memory"
        if why and (
            task.can_reduce_memory or not _is_ray_error(failure)
        ):  # Ray may kill any worker: a task that cannot take less memory is tried again
            reduced = task.with_less_memory(previous, why, self.report)
            return None if reduced is None else replace(again, attempt=reduced)
        self.report.log(task.name, f"its worker was lost, starting again: {failure.reason}", level="warning")
        return again


def _is_refusal(failure: Failure) -> bool:
    """True where the task raised QuoinError: its worker can be reused. Other errors may have damaged the process."""
    return failure.kind == "error" and isinstance(failure.error, QuoinError)


def _is_ray_error(failure: Failure) -> bool:
    return type(failure.error).__module__.startswith("ray.")


class Stragglers:
    """Logs tasks that take far longer than their cost lets expect, by the tasks that are done, while workers are idle.

    They are logged only: a second copy of a block's training would be a second writer of the block.
    """

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self._rates: list[float] = []
        self._reported: set[str] = set()

    def record(self, finished: TaskAttempt) -> None:
        """Take note of a task that has ended well."""
        if finished.task.cost > 0:
            self._rates.append((time.monotonic() - finished.began) / finished.task.cost)

    def report_slow(self, running: Sequence[TaskAttempt], n_idle: int) -> None:
        """Log, once each, the tasks that take far longer than expected."""
        if not self._rates or n_idle == 0:
            return
        rate, now = statistics.median(self._rates), time.monotonic()
        for attempt in running:
            expected_s, taken_s = rate * attempt.task.cost, now - attempt.began
            if attempt.task.name in self._reported or not 0 < STRAGGLER_FACTOR * expected_s < taken_s:
                continue
            self._reported.add(attempt.task.name)
            what = f"has taken {timecode(taken_s)} where {timecode(expected_s)} was expected of its size"
            idle = "a worker has" if n_idle == 1 else f"{n_idle} workers have"
            self.report.log(attempt.task.name, f"{what}, and {idle} nothing to do", level="warning")
