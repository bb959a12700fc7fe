"""What an executor is, and the simplest one: one job after the other in this process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from quoin.cluster.failures import MAX_MEMORY_LEVEL, out_of_memory_reason
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.fencing import Attempt

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Job:
    """Work that may run in another process: ``work(report, device, attempt)`` pickles, and may be started again.

    ``memory_bytes`` is what it is expected to need, ``cost`` how long it is expected to take next to others; 0 where
    unknown. ``fence(attempt id)`` is called here, by the driver, before each attempt. ``can_reduce_memory``: whether
    the work takes less memory where ``attempt.memory_level`` asks for it.
    """

    name: str
    work: Callable[[Reporter, str, Attempt], Any]
    memory_bytes: int = 0
    cost: float = 0.0
    fence: Callable[[str], None] | None = None
    can_reduce_memory: bool = False

    def start_attempt(self, attempt: Attempt) -> Attempt:
        """``attempt`` with an id of its own, claimed: whatever an earlier one still writes is refused from here on."""
        attempt = replace(attempt, id=secrets.token_hex(8))
        if self.fence is not None:
            self.fence(attempt.id)
        return attempt

    def with_less_memory(self, attempt: Attempt, why: str, report: Reporter) -> Attempt | None:
        """The attempt that follows one that lacked memory; None where it could not do with less."""
        if not self.can_reduce_memory or attempt.memory_level >= MAX_MEMORY_LEVEL:
            return None
        report.log(self.name, f"memory did not suffice, trying again with less: {why}", level="warning")
        return replace(attempt, memory_level=attempt.memory_level + 1, memory_reason=why)


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
            yield self._run_job(job, device, report)

    def session(self) -> AbstractContextManager[int]:
        return nullcontext(1)

    def _run_job(self, job: Job, device: str, report: Reporter) -> Outcome:
        attempt = Attempt()
        while True:
            try:
                return Outcome(job, job.work(report, device, job.start_attempt(attempt)))
            except Exception as error:
                why = out_of_memory_reason(error)
                next_attempt = job.with_less_memory(attempt, why, report) if why else None
                if next_attempt is None:
                    return Outcome(job, error=error)
            attempt = next_attempt  # out of the except clause, which would keep alive what did not fit


def run_jobs(executor: Executor, jobs: Sequence[Job], report: Reporter) -> list[Any]:
    """What jobs of different names return, in their order; raises the first error, once all have ended."""
    outcomes = list(executor.run(jobs, report))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    result_of = {outcome.job.name: outcome.result for outcome in outcomes}
    return [result_of[job.name] for job in jobs]


def pick_device(requested: Device) -> str:
    """``cpu`` or ``cuda`` on this machine; QuoinError where CUDA is wanted and absent."""
    if requested == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise QuoinError("No CUDA device is usable here", where=requested, hint="use --device cpu, or see quoin doctor")
    return "cpu"
