"""Classifies the error of a task on a Ray worker: its own code, out of memory, or the loss of the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from quoin.pipeline.core.errors import QuoinError, first_line
from quoin.pipeline.core.workers import out_of_memory_reason

OOM_SUSPECT_DEATHS = 2  # of a task's workers in a row, from which on memory is suspected: the kernel gives no reason

RAY_OOM_MESSAGES = ("OOM kill reason", "address the out of memory issue", "low on memory")  # in what Ray says


class WorkerStopped(Exception):
    """A worker got SIGTERM and has saved its work."""


@dataclass(frozen=True)
class Failure:
    """Why a task failed. ``kind``: ``error`` of the task itself; ``memory``; ``stopped`` by SIGTERM; ``died``: the
    worker process, for no reason given; ``lost``: its machine; ``unstartable``: no worker of this kind can start."""

    kind: Literal["error", "memory", "stopped", "died", "lost", "unstartable"]
    reason: str
    error: Exception


def classify(error: Any) -> Failure:
    """The failure behind an error of ``ray.get``."""
    import ray.exceptions as ray_errors

    if isinstance(error, ray_errors.RayTaskError):
        cause = remote_cause(error)
        if isinstance(cause, WorkerStopped):
            return Failure("stopped", str(cause), cause)
        reason = out_of_memory_reason(cause)
        return Failure("memory", reason, cause) if reason else Failure("error", first_line(cause), cause)
    text = str(error)
    if "creation task" in text:
        return Failure("unstartable", text, error)
    if isinstance(error, ray_errors.OutOfMemoryError) or any(sign in text for sign in RAY_OOM_MESSAGES):
        return Failure("memory", "Ray's memory monitor killed its worker", error)
    if isinstance(error, ray_errors.ActorUnavailableError | ray_errors.NodeDiedError) or "node has died" in text:
        return Failure("lost", "its machine does not answer", error)
    return Failure("died", "its worker died", error)


def remote_cause(error: Any) -> Exception:
    """The exception that the task raised in the actor, with the remote traceback as a note."""
    cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error))
    cause.add_note(str(error))
    return cause


def retries_exhausted(failure: Failure, n_attempts: int) -> QuoinError:
    """The error of a task whose workers were lost too often."""
    lost = QuoinError(
        f"Its worker was lost {n_attempts} times ({type(failure.error).__name__}: {first_line(failure.error)})",
        hint="give the workers more memory or make blocks smaller",
    )
    lost.add_note(str(failure.error))
    return lost
