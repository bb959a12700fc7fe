"""What an executor is, and the simplest one: one job after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipeline.errors import QuoinError
from pipeline.progress import Reporter

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Job:
    """Work that may run in another process: ``work(report, device)`` pickles, and may be started again after a crash.

    ``memory_bytes`` is what it is expected to need; 0 where unknown.
    """

    name: str
    work: Callable[[Reporter, str], Any]
    memory_bytes: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a result, or with the error that stopped it."""

    job: Job
    result: Any = None
    error: Exception | None = None


class Executor(Protocol):
    """Runs jobs somewhere and yields each one's outcome as it ends; a job that fails does not stop the others."""

    device: Device

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]: ...


class InlineExecutor:
    """Jobs run here, in order, each with all cores of the machine."""

    def __init__(self, device: Device = "auto") -> None:
        self.device = device

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        device = pick_device(self.device) if jobs else "cpu"
        for job in jobs:
            try:
                outcome = Outcome(job, job.work(report, device))
            except Exception as error:
                outcome = Outcome(job, error=error)
            yield outcome


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
