"""The Ray actors of one run: started, given tasks that fit their memory, polled, stopped, replaced where lost."""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from quoin.cluster.actor import WorkerActor, package_versions
from quoin.cluster.failures import classify
from quoin.cluster.resources import ResourceRequest
from quoin.pipeline.core import cancellation
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.core.workers import Attempt, Step, Task

EVENTS_TIMEOUT_SECONDS = 5.0
MAX_FAILED_STARTS = 5  # workers in a row that die before they are ready


@dataclass(eq=False)
class TaskAttempt:
    """A task, and which attempt at it this is."""

    step: Step
    task: Task
    attempt: Attempt = field(default_factory=Attempt)
    number: int = 1
    n_silent_deaths: int = 0  # of its workers in a row, for no reason given
    began: float = 0.0

    def pickled(self) -> bytes:
        """The step and its arguments as an actor gets them: functions of modules by reference, others by value."""
        from ray import cloudpickle

        return cloudpickle.dumps((self.step, self.task.args))


@dataclass(eq=False)
class ActorHandle:
    """One actor; ``result_ref`` refers to its versions until it is ready, then to the result of ``current_attempt``."""

    actor: Any
    memory_bytes: int
    result_ref: Any
    ready: bool = False
    current_attempt: TaskAttempt | None = None
    events: Any = None  # reference to the batch of events asked for


class ActorPool:
    """At most ``resources.n_workers`` actors, whose events go to ``report``. Starting one takes seconds: it does many
    tasks.

    ``keep_idle``: actors without a task stay for the next ones.
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
        """How many more tasks could run at the same time."""
        return self.resources.n_workers - len(self.busy)

    def start(self, waiting: deque[TaskAttempt]) -> None:
        """Start as many actors as there are tasks for."""
        n_free = sum(worker.current_attempt is None for worker in self.actors)  # each takes one of those that wait
        needs = [candidate.task.memory_bytes for candidate in waiting][n_free:]
        while needs and len(self.actors) < self.resources.n_workers:
            self._start_actor(self.resources.reserved_bytes(needs.pop(0), needs))

    def _start_actor(self, memory_bytes: int) -> None:
        actor = self._actor_class.options(memory=memory_bytes or None, **self._options).remote(
            self.resources.gpu_share or 1.0
        )
        self.actors.append(ActorHandle(actor, memory_bytes, actor.get_versions.remote()))

    def assign(self, waiting: deque[TaskAttempt]) -> None:
        """Give every idle actor the first task that fits its memory; stop actors that no task fits, to free theirs."""
        for worker in self.ready:
            if worker.current_attempt is not None:
                continue
            fits = (
                candidate
                for candidate in waiting
                if self.resources.required_bytes(candidate.task.memory_bytes) <= worker.memory_bytes
            )
            next_attempt = next(fits, None)
            if next_attempt is None:
                if waiting or not self.keep_idle:
                    self._stop_actor(worker)
                continue
            waiting.remove(next_attempt)
            next_attempt.attempt, next_attempt.began = (
                next_attempt.task.start_attempt(next_attempt.attempt),
                time.monotonic(),
            )
            worker.current_attempt = next_attempt
            worker.result_ref = worker.actor.run_task.remote(
                next_attempt.pickled(), self.resources.device, next_attempt.attempt
            )
            worker.events = worker.events or worker.actor.take_events.remote()

    def wait(self, seconds: float) -> list[ActorHandle]:
        """Actors that have started or ended a task; waits up to so many seconds for the first."""
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
        """Take in an actor that has started; QuoinError where none can, or where its versions are not the driver's."""
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
        """Pass events that have arrived, or arrive within the timeout, to the reporter, and ask for the next."""
        if not self.ray.wait([worker.events], timeout=timeout_s)[0]:
            return
        try:
            self.emit_events(self.ray.get(worker.events))
        except self.ray.exceptions.RayError:  # the actor is gone; the reference to its result says so, too
            return
        worker.events = worker.actor.take_events.remote()

    def emit_events(self, events: list[Event]) -> None:
        """Pass events to the reporter."""
        for event in events:
            self.report.emit(event)

    def collect_result(self, worker: ActorHandle) -> Any:
        """The result of the task of ``worker``, after all its events; raises the error that stopped it."""
        self.forward_events(worker, EVENTS_TIMEOUT_SECONDS)
        try:
            result, events = self.ray.get(worker.result_ref)
        except self.ray.exceptions.RayTaskError:  # the actor lives, and has the last events still
            self.forward_events(worker, EVENTS_TIMEOUT_SECONDS)
            raise
        self.emit_events(events)
        return result

    def release(self, worker: ActorHandle, *, broken: bool) -> None:
        """Take note that the task of ``worker`` has ended; a ``broken`` actor is stopped."""
        worker.current_attempt = None
        if broken:
            self._stop_actor(worker)

    def stop(self) -> None:
        """Stop all actors. Those with a task are asked to save its work first, and given some seconds."""
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
    """The error where no worker can start: the last line of what Ray says."""
    last = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()[-1]
    hint = "install this version of quoin on every machine of the cluster"
    return QuoinError(f"No Ray worker can start: {last}", hint=hint)
