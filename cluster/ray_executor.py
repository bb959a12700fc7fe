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

from quoin.cluster.actor_pool import Staff, Try, Workforce
from quoin.cluster.connection import Head, cluster
from quoin.cluster.executor import Device, Job, Outcome
from quoin.cluster.failures import SILENT_DEATHS, Fault, gave_up, judge
from quoin.cluster.resources import share_of
from quoin.cluster.stragglers import Stragglers
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter

POLL_SECONDS = 1.0
MANY = 1_000_000  # jobs, more than there are workers
SCARCE_SECONDS = 60.0  # without a single worker, until that is told


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
            raise QuoinError("A worker takes a part of one GPU", where=gpu_share, do="give more than 0 and at most 1")
        self.device, self.address, self.workers, self.retries = device, address, workers, retries
        self.gpu_share = gpu_share
        self._in_session = False
        self._kept: Workforce | None = None  # who has done the last jobs of a session

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        if not jobs:
            return
        with cluster(self.address) as ray:
            share = share_of(ray, self.device, len(jobs), self.workers, self.gpu_share, self.address)
            n_jobs = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
            n_workers = "1 worker" if share.n_workers == 1 else f"{share.n_workers} workers at a time"
            report.log("ray", f"{n_jobs} on {n_workers}, {share.device}")
            kept = self._kept if self._kept is not None and self._kept.share == share else None
            if kept is None:
                self._dismiss()
            force, self._kept = kept or Workforce(ray, share), None
            force.report, force.stays = report, self._in_session
            done = False
            try:
                yield from _Drive(ray, jobs, force, self.retries, report).outcomes()
                done = True
            finally:
                if done and self._in_session:
                    self._kept = force
                else:
                    force.dismiss()

    @contextmanager
    def session(self) -> Iterator[int]:
        """Inside, workers stay for the next ``run``, where that shares the cluster in the same way."""
        with cluster(self.address) as ray:
            self._in_session = True
            try:
                yield share_of(ray, self.device, MANY, self.workers, self.gpu_share, self.address).n_workers
            finally:
                self._in_session = False
                self._dismiss()

    def _dismiss(self) -> None:
        if self._kept is not None:
            self._kept.dismiss()
        self._kept = None


class _Drive:
    """One ``run``: what waits, who works, and what becomes of what comes home."""

    def __init__(self, ray: Any, jobs: Sequence[Job], force: Workforce, retries: int, report: Reporter) -> None:
        self.ray, self.retries, self.report, self.force = ray, retries, report, force
        self.waiting = deque(Try(job) for job in jobs)
        self.stragglers = Stragglers(report)
        self.head = Head(ray)

    def outcomes(self) -> Iterator[Outcome]:
        polled, had_workers = 0.0, time.monotonic()
        try:
            while self.waiting or self.force.busy:
                self.force.hire(self.waiting)
                self.force.assign(self.waiting)
                for worker in self.force.wait(POLL_SECONDS):
                    if worker.doing is None:
                        self.force.welcome(worker)
                    else:
                        outcome = self._end(worker, worker.doing)
                        if outcome is not None:
                            yield outcome
                now = time.monotonic()
                if now - polled >= POLL_SECONDS:
                    polled = now
                    for worker in self.force.busy:
                        self.force.forward(worker)
                    self.head.check()
                    if not self.waiting:
                        self.stragglers.look([w.doing for w in self.force.busy if w.doing], self.force.n_idle)
                    if self.force.ready:
                        had_workers = now
                    elif now - had_workers > SCARCE_SECONDS:
                        had_workers = now
                        why = "no worker can start: the cluster has nothing free, or not enough of it in one machine"
                        self.report.log("ray", why, level="warning")
        except SystemError as error:  # what Ray's wait makes of that which a signal's handler raises meanwhile
            raised = error.__cause__
            raise raised if raised is not None and not isinstance(raised, Exception) else error from None

    def _end(self, worker: Staff, attempt: Try) -> Outcome | None:
        """What became of the job of ``worker``: its outcome, or None where it waits for another attempt."""
        try:
            result = self.force.collect(worker)
        except self.ray.exceptions.RayError as error:
            fault = judge(error)
        else:
            self.stragglers.learn(attempt)
            self.force.free(worker, broken=False)
            return Outcome(attempt.job, result)
        self.force.free(worker, broken=not _refused(fault))
        if fault.kind == "error":
            return Outcome(attempt.job, error=fault.error)
        again = self._again(attempt, fault)
        if again is None:
            last = fault.error if fault.kind == "memory" and not _of_ray(fault) else gave_up(fault, attempt.number)
            return Outcome(attempt.job, error=last)
        self.waiting.appendleft(again)
        return None

    def _again(self, attempt: Try, fault: Fault) -> Try | None:
        """The attempt after one that was lost to ``fault``; None where there have been enough."""
        told, job = attempt.attempt, attempt.job
        if fault.kind == "stopped":
            self.report.log(job.name, "its worker was told to stop, going on elsewhere", level="warning")
            return Try(job, told, attempt.number, attempt.n_silent)
        if attempt.number > self.retries:
            return None
        n_silent = attempt.n_silent + 1 if fault.kind == "died" else 0
        why = fault.why if fault.kind == "memory" else ""
        if n_silent >= SILENT_DEATHS and job.shrinks:
            why = f"its worker died {n_silent} times without a word, as where the system kills for memory"
        if why and (job.shrinks or not _of_ray(fault)):  # Ray kills whom it likes: who cannot do with less tries again
            less = job.less(told, why, self.report)
            return None if less is None else Try(job, less, attempt.number + 1, n_silent)
        self.report.log(job.name, f"its worker was lost, starting again: {fault.why}", level="warning")
        return Try(job, told, attempt.number + 1, n_silent)


def _refused(fault: Fault) -> bool:
    """Whether a job only said no: whatever else it may have left of its process, nobody else gets."""
    return fault.kind == "error" and isinstance(fault.error, QuoinError)


def _of_ray(fault: Fault) -> bool:
    return type(fault.error).__module__.startswith("ray.")
