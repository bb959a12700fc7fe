"""What stopped a job on a worker, by the error that came home: its own code, memory, or the loss of the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from quoin.pipeline.core.errors import OutOfMemory, QuoinError, first_line

MAX_MEMORY_LEVEL = 3  # times that an attempt is halved
OOM_SUSPECT_DEATHS = (
    2  # of a job's workers in a row, from which on memory is suspected: the kernel kills without a word
)

RAY_OOM_MESSAGES = ("OOM kill reason", "address the out of memory issue", "low on memory")  # in what Ray says


class WorkerStopped(Exception):
    """A worker was told to stop (SIGTERM) and has saved its work."""


@dataclass(frozen=True)
class Failure:
    """``kind``: ``error`` of the job itself; ``memory``; ``stopped`` on purpose; ``died``, its process without a word;
    ``lost``, its machine; ``unstartable``: no worker of this kind can start."""

    kind: Literal["error", "memory", "stopped", "died", "lost", "unstartable"]
    reason: str
    error: Exception


def out_of_memory_reason(error: BaseException) -> str:
    """What an error that our code raised says of a lack of memory; "" where it is of something else."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if isinstance(error, OutOfMemory | MemoryError) or "OutOfMemoryError" in kinds:
        return first_line(error)
    return ""


def classify(error: Any) -> Failure:
    """The fault behind an error of ``ray.get``."""
    import ray.exceptions as failure

    if isinstance(error, failure.RayTaskError):
        cause = remote_cause(error)
        if isinstance(cause, WorkerStopped):
            return Failure("stopped", str(cause), cause)
        reason = out_of_memory_reason(cause)
        return Failure("memory", reason, cause) if reason else Failure("error", first_line(cause), cause)
    text = str(error)
    if "creation task" in text:
        return Failure("unstartable", text, error)
    if isinstance(error, failure.OutOfMemoryError) or any(sign in text for sign in RAY_OOM_MESSAGES):
        return Failure("memory", "Ray's memory monitor killed its worker", error)
    if isinstance(error, failure.ActorUnavailableError | failure.NodeDiedError) or "node has died" in text:
        return Failure("lost", "its machine does not answer", error)
    return Failure("died", "its worker died", error)


def remote_cause(error: Any) -> Exception:
    """The exception our code raised in the actor, the remote traceback noted on it."""
    cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error))
    cause.add_note(str(error))
    return cause


def retries_exhausted(fault: Failure, n_attempts: int) -> QuoinError:
    """A job whose workers were lost too often."""
    lost = QuoinError(
        f"Its worker was lost {n_attempts} times ({type(fault.error).__name__}: {first_line(fault.error)})",
        hint="give the workers more memory or make blocks smaller",
    )
    lost.add_note(str(fault.error))
    return lost
