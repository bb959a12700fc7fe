"""The actors of one run: hired, given jobs that fit their reservation, listened to, replaced, dismissed."""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from quoin.cluster.actor import Worker, versions
from quoin.cluster.executor import Job
from quoin.cluster.failures import judge
from quoin.cluster.resources import Share
from quoin.pipeline.core import cancellation
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.storage.fencing import Attempt

LAST_EVENTS_SECONDS = 5.0
FAILED_STARTS = 5  # workers in a row that die before they are there


@dataclass(eq=False)
class Try:
    """A job, and which attempt at it this is."""

    job: Job
    attempt: Attempt = field(default_factory=Attempt)
    number: int = 1
    n_silent: int = 0  # of its workers in a row that died without a word
    began: float = 0.0


@dataclass(eq=False)
class Staff:
    """One actor; ``answer`` refers to its greeting until it is ready, then to the result of what it is ``doing``."""

    actor: Any
    memory_bytes: int
    answer: Any
    ready: bool = False
    doing: Try | None = None
    events: Any = None  # reference to the batch of events asked for


class Workforce:
    """At most ``share.n_workers`` actors, heard by ``report``. Starting one takes seconds, so each does many jobs.

    ``stays``: who has nothing to do waits for what may come.
    """

    def __init__(self, ray: Any, share: Share) -> None:
        self.ray, self.share, self.report, self.stays = ray, share, Reporter(), False
        self.staff: list[Staff] = []
        self._failed_starts = 0
        self._kind = ray.remote(Worker)
        no_gpu = {"CUDA_VISIBLE_DEVICES": ""} if share.device == "cpu" else {}
        self._options = {
            "max_concurrency": 3,
            "max_restarts": 0,
            "num_cpus": share.n_threads,
            "num_gpus": share.gpu_share,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(share.n_threads), **no_gpu}},
        }

    @property
    def busy(self) -> list[Staff]:
        return [worker for worker in self.staff if worker.doing is not None]

    @property
    def ready(self) -> list[Staff]:
        return [worker for worker in self.staff if worker.ready]

    @property
    def n_idle(self) -> int:
        """Places at which nobody works."""
        return self.share.n_workers - len(self.busy)

    def hire(self, waiting: deque[Try]) -> None:
        """Have as many workers as there is work for."""
        n_free = sum(worker.doing is None for worker in self.staff)  # each takes one of those that wait
        needs = [one.job.memory_bytes for one in waiting][n_free:]
        while needs and len(self.staff) < self.share.n_workers:
            self._hire(self.share.reservation(needs.pop(0), needs))

    def _hire(self, memory_bytes: int) -> None:
        actor = self._kind.options(memory=memory_bytes or None, **self._options).remote(self.share.gpu_share or 1.0)
        self.staff.append(Staff(actor, memory_bytes, actor.hello.remote()))

    def assign(self, waiting: deque[Try]) -> None:
        """Give whoever is ready the first job that fits; whom none fits goes, and leaves its memory."""
        for worker in self.ready:
            if worker.doing is not None:
                continue
            fits = (one for one in waiting if self.share.needs(one.job.memory_bytes) <= worker.memory_bytes)
            chosen = next(fits, None)
            if chosen is None:
                if waiting or not self.stays:
                    self._dismiss(worker)
                continue
            waiting.remove(chosen)
            chosen.attempt, chosen.began = chosen.job.begin(chosen.attempt), time.monotonic()
            worker.doing = chosen
            worker.answer = worker.actor.work.remote(chosen.job.work, self.share.device, chosen.attempt)
            worker.events = worker.events or worker.actor.take_events.remote()

    def wait(self, seconds: float) -> list[Staff]:
        """Those that have answered, by a greeting or with a result; waits so long for the first."""
        asked = {worker.answer: worker for worker in self.staff if worker.doing is not None or not worker.ready}
        if not asked or not self.ray.wait(list(asked), timeout=seconds)[0]:
            return []
        answered, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0)
        return [asked[reference] for reference in answered]

    def welcome(self, worker: Staff) -> None:
        """A worker that has started; QuoinError where none can, or where it has other versions than the driver."""
        try:
            theirs = self.ray.get(worker.answer)
        except self.ray.exceptions.RayError as error:
            self._dismiss(worker)
            self._failed_starts += 1
            fault = judge(error)
            if fault.kind == "unstartable" or self._failed_starts >= FAILED_STARTS:
                raise cannot_start(error) from None
            return
        self._failed_starts, worker.ready = 0, True
        for name, ours in versions().items():
            if theirs.get(name) != ours:
                raise QuoinError(
                    f"A worker has {name} {theirs.get(name)}, this process has {ours}",
                    do=f"install the same {name} on every machine of the cluster",
                )

    def forward(self, worker: Staff, patience_s: float = 0.0) -> None:
        """Hand the events that have arrived to the reporter, or arrive in so many seconds, and ask for more."""
        if not self.ray.wait([worker.events], timeout=patience_s)[0]:
            return
        try:
            self.tell(self.ray.get(worker.events))
        except self.ray.exceptions.RayError:  # the actor is gone; its job's own reference tells so
            return
        worker.events = worker.actor.take_events.remote()

    def tell(self, events: list[Event]) -> None:
        """Hand events to the reporter."""
        for event in events:
            self.report.emit(event)

    def collect(self, worker: Staff) -> Any:
        """The result of the job of ``worker``, or the error that stopped it is raised; all its events told."""
        self.forward(worker, LAST_EVENTS_SECONDS)
        try:
            result, events = self.ray.get(worker.answer)
        except self.ray.exceptions.RayTaskError:  # the actor lives, and has the last events still
            self.forward(worker, LAST_EVENTS_SECONDS)
            raise
        self.tell(events)
        return result

    def free(self, worker: Staff, *, broken: bool) -> None:
        """The job of ``worker`` has ended; one that is ``broken`` goes, too."""
        worker.doing = None
        if broken:
            self._dismiss(worker)

    def dismiss(self) -> None:
        """All go. Who is at work is asked to save it first, and given some seconds."""
        busy = self.busy
        for worker in busy:
            worker.actor.stop.remote()
        if busy:
            answers = [worker.answer for worker in busy]
            self.ray.wait(answers, num_returns=len(answers), timeout=cancellation.PATIENCE_SECONDS)
        for worker in list(self.staff):
            self._dismiss(worker)

    def _dismiss(self, worker: Staff) -> None:
        self.ray.kill(worker.actor)
        self.staff.remove(worker)


def cannot_start(error: Exception) -> QuoinError:
    """No worker can start, told by the last line of why."""
    last = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()[-1]
    do = "install this version of quoin on every machine of the cluster"
    return QuoinError(f"No Ray worker can start: {last}", do=do)
