"""Who does what can be done photo by photo or pair by pair, besides this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from quoin.pipeline.core.errors import QuoinError

PHOTOS_PER_TASK = 16  # of a portion


class NoWorkersError(QuoinError):
    """Nobody else can do it: this process must."""


class PhotosNotVisibleError(NoWorkersError):
    """A worker cannot read photos that the driver can."""


class Task(NamedTuple):
    """What a method of ``stages.pose.matching_jobs.Work`` is given, and its expected cost."""

    args: tuple
    cost: float


@runtime_checkable
class Workers(Protocol):
    """Several workers, each of which reads the run, perhaps the photos, and has cores for itself."""

    n_workers: int  # portions that are worked on at the same time

    def map(self, step: str, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """The number of every portion, and what ``step`` of ``Work`` returns for it, as they end; raises what fails."""
        ...

    def release(self) -> None:
        """Be told that nothing will be asked of them for long."""
        ...
