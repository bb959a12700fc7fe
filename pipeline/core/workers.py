"""Workers run the tasks of a stage: one protocol, and the workers that are this process itself.

A stage says what is to be done: a step (a module-level function, or a method of an object that pickles) and its tasks,
one for each photo, pair, block or chunk. ``Workers.map`` says who does it: ``InlineWorkers`` here, in this process, or
``quoin.cluster.ray_workers.RayWorkers`` on the machines of a cluster.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from quoin.pipeline.core.errors import OutOfMemory, QuoinError, first_line
from quoin.pipeline.core.events import Reporter

Device = Literal["auto", "cpu", "cuda"]

OUT_OF_MEMORY_PHRASES = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
MAX_MEMORY_LEVEL = 3  # times that the memory of a task is halved
_T = TypeVar("_T")


class NoWorkersError(QuoinError):
    """The workers cannot do these tasks; this process has to."""


@dataclass(frozen=True)
class Attempt:
    """Which attempt at a task this is.

    ``memory_level``: how many times over to take less memory than planned, for ``memory_reason``.
    """

    id: str = ""  # "": no other attempt can be running, as in a notebook
    memory_level: int = 0
    memory_reason: str = ""


@dataclass(frozen=True)
class TaskContext:
    """What a worker gives to each task: where it reports, the device to compute on, and which attempt this is."""

    report: Reporter = field(default_factory=Reporter)
    device: Device = "cpu"
    attempt: Attempt = Attempt()


@dataclass(frozen=True)
class Task:
    """One call ``step(context, *args)``. It may run in another process, so ``args`` pickle, and be started again.

    ``memory_bytes`` and ``cost`` are the memory it is expected to need and how long it is expected to take next to
    others; 0 where unknown. ``fence(attempt id)`` is called by the driver before each attempt. ``can_reduce_memory``:
    the step takes less memory where ``Attempt.memory_level`` asks for it.
    """

    name: str
    args: tuple[Any, ...] = ()
    memory_bytes: int = 0
    cost: float = 0.0
    fence: Callable[[str], None] | None = None
    can_reduce_memory: bool = False

    def start_attempt(self, attempt: Attempt) -> Attempt:
        """``attempt`` with a new id, fenced: what earlier attempts still try to write is refused from here on."""
        attempt = replace(attempt, id=secrets.token_hex(8))
        if self.fence is not None:
            self.fence(attempt.id)
        return attempt

    def with_less_memory(self, attempt: Attempt, why: str, report: Reporter) -> Attempt | None:
        """The attempt after one that ran out of memory; None where the task cannot take less."""
        if not self.can_reduce_memory or attempt.memory_level >= MAX_MEMORY_LEVEL:
            return None
        report.log(self.name, f"out of memory, trying again with less: {why}", level="warning")
        return replace(attempt, memory_level=attempt.memory_level + 1, memory_reason=why)


@dataclass(frozen=True)
class Outcome:
    """How a task ended: its result, or the error that stopped it."""

    task: Task
    result: Any = None
    error: Exception | None = None

    def value(self) -> Any:
        """The result; raises the error."""
        if self.error is not None:
            raise self.error
        return self.result


Step = Callable[..., Any]  # step(context: TaskContext, *task.args)


@runtime_checkable
class Workers(Protocol):
    """One or more workers. ``address``: of a cluster, whose devices and memory are not those of this machine."""

    device: Device
    address: str | None

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        """The outcome of every task as it ends; a task that fails does not stop the others. Task names are unique."""
        ...

    def session(self) -> AbstractContextManager[int]:
        """Inside, calls of ``map`` share the workers that they start; yields how many tasks run at the same time."""
        ...


class InlineWorkers:
    """This process: tasks run in order, each with all cores of the machine."""

    address: str | None = None

    def __init__(self, device: Device = "cpu") -> None:
        self.device: Device = device

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        for task in tasks:
            yield self._run(step, task, report)

    def session(self) -> AbstractContextManager[int]:
        return nullcontext(1)

    def _run(self, step: Step, task: Task, report: Reporter) -> Outcome:
        attempt = Attempt()
        while True:
            try:
                return Outcome(task, step(TaskContext(report, self.device, task.start_attempt(attempt)), *task.args))
            except Exception as error:
                why = out_of_memory_reason(error)
                next_attempt = task.with_less_memory(attempt, why, report) if why else None
                if next_attempt is None:
                    return Outcome(task, error=error)
            attempt = next_attempt  # outside of the except clause, which would keep alive what did not fit


def map_all(workers: Workers, step: Step, tasks: Sequence[Task], report: Reporter) -> list[Any]:
    """Results of all tasks, in their order; raises the first error once all tasks have ended."""
    results = {}
    for outcome in list(workers.map(step, tasks, report)):
        results[outcome.task.name] = outcome.value()
    return [results[task.name] for task in tasks]


def out_of_memory_reason(error: BaseException) -> str:
    """First line of an error that says that memory ran out (of the host or of a GPU); "" for other errors.

    CUDA has a type for it; the CPU's allocator, cuBLAS and some CUDA calls raise a RuntimeError, known by its text.
    """
    kinds = [kind.__name__ for kind in type(error).__mro__]
    is_known_by_text = isinstance(error, RuntimeError) and any(w in str(error).lower() for w in OUT_OF_MEMORY_PHRASES)
    is_refused_by_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, OutOfMemory | MemoryError) or "OutOfMemoryError" in kinds or is_known_by_text:
        return first_line(error)
    return first_line(error) if is_refused_by_system else ""


def out_of_memory_error(reason: str, where: object) -> OutOfMemory:
    """The error that says what running out of memory means: ``reason`` is that of ``out_of_memory_reason``."""
    hint = (
        "close other programs or use a machine with more memory; or reconstruct coarser (--set partition.resolution) "
        "in smaller blocks (--memory)"
    )
    return OutOfMemory(f"This machine has too little memory for this ({reason})", where=where, hint=hint)


def thread_map(function: Callable[[int], _T], count: int, threads: int, advance: Callable[[float], None]) -> list[_T]:
    """``[function(0), ..., function(count - 1)]``; the first exception ends it."""
    results: list[_T] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for result in pool.map(function, range(count)):
                results.append(result)
                advance(len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results
