"""The actors of one run: hired, given jobs that fit their reservation, listened to, replaced, dismissed."""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from quoin.cluster.actor import WorkerActor, package_versions
from quoin.cluster.executor import Job
from quoin.cluster.failures import classify
from quoin.cluster.resources import ResourceRequest
from quoin.pipeline.core import cancellation
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.storage.fencing import Attempt

EVENTS_TIMEOUT_SECONDS = 5.0
MAX_FAILED_STARTS = 5  # workers in a row that die before they are there


@dataclass(eq=False)
class JobAttempt:
    """A job, and which attempt at it this is."""

    job: Job
    attempt: Attempt = field(default_factory=Attempt)
    number: int = 1
    n_silent_deaths: int = 0  # of its workers in a row that died without a word
    began: float = 0.0


@dataclass(eq=False)
class ActorHandle:
    """One actor; ``result_ref`` refers to its greeting until it is ready, then to the result of what it is
    ``current_attempt``."""

    actor: Any
    memory_bytes: int
    result_ref: Any
    ready: bool = False
    current_attempt: JobAttempt | None = None
    events: Any = None  # reference to the batch of events asked for


class ActorPool:
    """At most ``resources.n_workers`` actors, heard by ``report``. Starting one takes seconds, so each does many jobs.

    ``keep_idle``: who has nothing to do waits for what may come.
    """

    def __init__(self, ray: Any, resources: ResourceRequest) -> None:
        self.ray, self.resources, self.report, self.keep_idle = ray, resources, Reporter(), False
        self.actors: list[ActorHandle] = []
        self._failed_starts = 0
        self._actor_class = ray.remote(WorkerActor)
        no_gpu = {"CUDA_VISIBLE_DEVICES": ""} if resources.device == "cpu" else {}
        self._options = {
            "max_concurrency": 3,
            "max_restarts": 0,
            "num_cpus": resources.n_threads,
            "num_gpus": resources.gpu_share,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(resources.n_threads), **no_gpu}},
        }

    @property
    def busy(self) -> list[ActorHandle]:
        return [worker for worker in self.actors if worker.current_attempt is not None]

    @property
    def ready(self) -> list[ActorHandle]:
        return [worker for worker in self.actors if worker.ready]

    @property
    def n_idle(self) -> int:
        """Places at which nobody works."""
        return self.resources.n_workers - len(self.busy)

    def start(self, waiting: deque[JobAttempt]) -> None:
        """Have as many workers as there is work for."""
        n_free = sum(worker.current_attempt is None for worker in self.actors)  # each takes one of those that wait
        needs = [candidate.job.memory_bytes for candidate in waiting][n_free:]
        while needs and len(self.actors) < self.resources.n_workers:
            self._start_actor(self.resources.reserved_bytes(needs.pop(0), needs))

    def _start_actor(self, memory_bytes: int) -> None:
        actor = self._actor_class.options(memory=memory_bytes or None, **self._options).remote(
            self.resources.gpu_share or 1.0
        )
        self.actors.append(ActorHandle(actor, memory_bytes, actor.get_versions.remote()))

    def assign(self, waiting: deque[JobAttempt]) -> None:
        """Give whoever is ready the first job that fits; whom none fits goes, and leaves its memory."""
        for worker in self.ready:
            if worker.current_attempt is not None:
                continue
            fits = (
                candidate
                for candidate in waiting
                if self.resources.required_bytes(candidate.job.memory_bytes) <= worker.memory_bytes
            )
            next_attempt = next(fits, None)
            if next_attempt is None:
                if waiting or not self.keep_idle:
                    self._stop_actor(worker)
                continue
            waiting.remove(next_attempt)
            next_attempt.attempt, next_attempt.began = (
                next_attempt.job.start_attempt(next_attempt.attempt),
                time.monotonic(),
            )
            worker.current_attempt = next_attempt
            worker.result_ref = worker.actor.work.remote(
                next_attempt.job.work, self.resources.device, next_attempt.attempt
            )
            worker.events = worker.events or worker.actor.take_events.remote()

    def wait(self, seconds: float) -> list[ActorHandle]:
        """Those that have answered, by a greeting or with a result; waits so long for the first."""
        pending = {
            worker.result_ref: worker
            for worker in self.actors
            if worker.current_attempt is not None or not worker.ready
        }
        if not pending or not self.ray.wait(list(pending), timeout=seconds)[0]:
            return []
        answered, _ = self.ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [pending[reference] for reference in answered]

    def on_ready(self, worker: ActorHandle) -> None:
        """A worker that has started; QuoinError where none can, or where it has other versions than the driver."""
        try:
            worker_versions = self.ray.get(worker.result_ref)
        except self.ray.exceptions.RayError as error:
            self._stop_actor(worker)
            self._failed_starts += 1
            failure = classify(error)
            if failure.kind == "unstartable" or self._failed_starts >= MAX_FAILED_STARTS:
                raise actor_start_error(error) from None
            return
        self._failed_starts, worker.ready = 0, True
        for name, ours in package_versions().items():
            if worker_versions.get(name) != ours:
                raise QuoinError(
                    f"A worker has {name} {worker_versions.get(name)}, this process has {ours}",
                    hint=f"install the same {name} on every machine of the cluster",
                )

    def forward_events(self, worker: ActorHandle, timeout_s: float = 0.0) -> None:
        """Hand the events that have arrived to the reporter, or arrive in so many seconds, and ask for more."""
        if not self.ray.wait([worker.events], timeout=timeout_s)[0]:
            return
        try:
            self.emit_events(self.ray.get(worker.events))
        except self.ray.exceptions.RayError:  # the actor is gone; its job's own reference tells so
            return
        worker.events = worker.actor.take_events.remote()

    def emit_events(self, events: list[Event]) -> None:
        """Hand events to the reporter."""
        for event in events:
            self.report.emit(event)

    def collect_result(self, worker: ActorHandle) -> Any:
        """The result of the job of ``worker``, or the error that stopped it is raised; all its events told."""
        self.forward_events(worker, EVENTS_TIMEOUT_SECONDS)
        try:
            result, events = self.ray.get(worker.result_ref)
        except self.ray.exceptions.RayTaskError:  # the actor lives, and has the last events still
            self.forward_events(worker, EVENTS_TIMEOUT_SECONDS)
            raise
        self.emit_events(events)
        return result

    def release(self, worker: ActorHandle, *, broken: bool) -> None:
        """The job of ``worker`` has ended; one that is ``broken`` goes, too."""
        worker.current_attempt = None
        if broken:
            self._stop_actor(worker)

    def stop(self) -> None:
        """All go. Who is at work is asked to save it first, and given some seconds."""
        busy = self.busy
        for worker in busy:
            worker.actor.stop.remote()
        if busy:
            answers = [worker.result_ref for worker in busy]
            self.ray.wait(answers, num_returns=len(answers), timeout=cancellation.SAVE_TIMEOUT_SECONDS)
        for worker in list(self.actors):
            self._stop_actor(worker)

    def _stop_actor(self, worker: ActorHandle) -> None:
        self.ray.kill(worker.actor)
        self.actors.remove(worker)


def actor_start_error(error: Exception) -> QuoinError:
    """No worker can start, told by the last line of why."""
    last = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()[-1]
    hint = "install this version of quoin on every machine of the cluster"
    return QuoinError(f"No Ray worker can start: {last}", hint=hint)
