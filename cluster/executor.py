"""What an executor is, and the simplest one: one job after the other in this process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from quoin.cluster.failures import MOST_SMALLER, short_of_memory
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.fencing import Attempt

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Job:
    """Work that may run in another process: ``work(report, device, attempt)`` pickles, and may be started again.

    ``memory_bytes`` is what it is expected to need, ``cost`` how long it is expected to take next to others; 0 where
    unknown. ``claim(attempt id)`` is called here, by the driver, before each attempt. ``shrinks``: whether the work
    takes less memory where ``attempt.smaller`` asks for it.
    """

    name: str
    work: Callable[[Reporter, str, Attempt], Any]
    memory_bytes: int = 0
    cost: float = 0.0
    claim: Callable[[str], None] | None = None
    shrinks: bool = False

    def begin(self, attempt: Attempt) -> Attempt:
        """``attempt`` with an id of its own, claimed: whatever an earlier one still writes is refused from here on."""
        attempt = replace(attempt, id=secrets.token_hex(8))
        if self.claim is not None:
            self.claim(attempt.id)
        return attempt

    def less(self, attempt: Attempt, why: str, report: Reporter) -> Attempt | None:
        """The attempt that follows one that lacked memory; None where it could not do with less."""
        if not self.shrinks or attempt.smaller >= MOST_SMALLER:
            return None
        report.log(self.name, f"memory did not suffice, trying again with less: {why}", level="warning")
        return replace(attempt, smaller=attempt.smaller + 1, why_smaller=why)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a result, or with the error that stopped it."""

    job: Job
    result: Any = None
    error: Exception | None = None


class Executor(Protocol):
    """Runs jobs somewhere and yields each one's outcome as it ends; a job that fails does not stop the others."""

    device: Device
    address: str | None  # of a cluster, whose devices and memory are not those of this machine

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]: ...

    def session(self) -> AbstractContextManager[int]:
        """Inside, several calls of ``run`` share what they start; gives how many jobs are worked on at a time."""
        ...


class InlineExecutor:
    """Jobs run here, in order, each with all cores of the machine."""

    address: str | None = None

    def __init__(self, device: Device = "auto") -> None:
        self.device = device

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        device = pick_device(self.device) if jobs else "cpu"
        for job in jobs:
            yield self._one(job, device, report)

    def session(self) -> AbstractContextManager[int]:
        return nullcontext(1)

    def _one(self, job: Job, device: str, report: Reporter) -> Outcome:
        attempt = Attempt()
        while True:
            try:
                return Outcome(job, job.work(report, device, job.begin(attempt)))
            except Exception as error:
                why = short_of_memory(error)
                less = job.less(attempt, why, report) if why else None
                if less is None:
                    return Outcome(job, error=error)
            attempt = less  # out of the except clause, which would keep alive what did not fit


def results(executor: Executor, jobs: Sequence[Job], report: Reporter) -> list[Any]:
    """What jobs of different names return, in their order; raises the first error, once all have ended."""
    outcomes = list(executor.run(jobs, report))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    found = {outcome.job.name: outcome.result for outcome in outcomes}
    return [found[job.name] for job in jobs]


def pick_device(wanted: Device) -> str:
    """``cpu`` or ``cuda`` on this machine; QuoinError where CUDA is wanted and absent."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise QuoinError("No CUDA device is usable here", where=wanted, do="use --device cpu, or see quoin doctor")
    return "cpu"
