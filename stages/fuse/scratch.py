"""Where what is known of each part waits while others are worked on: in memory where there is one, else in files."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

Array = np.ndarray

FOLDER = "work/fuse"


@runtime_checkable
class Place(Protocol):
    """Keeps files: a run, for all that work on it, or a ``pipeline.storage.backend.Home``, for this process."""

    def deposit(self, name: str) -> AbstractContextManager[Path]: ...

    def borrowed(self, name: str) -> AbstractContextManager[Path]: ...

    def remove(self, name: str) -> None: ...


class Shelf:
    """Named arrays by part; kept in files at ``place`` unless that is None. ``clear`` leaves nothing."""

    def __init__(self, place: Place | None) -> None:
        self._place, self._here = place, dict[str, dict[str, Array]]()

    def put(self, part: int, what: str, **arrays: Array) -> None:
        """Keep arrays of a part under a word; what was there gives way."""
        if self._place is None:
            self._here[_name(part, what)] = arrays
        else:
            with self._place.deposit(_name(part, what)) as path, open(path, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

    def get(self, part: int, what: str) -> dict[str, Array]:
        """The arrays again."""
        if self._place is None:
            return self._here[_name(part, what)]
        with self._place.borrowed(_name(part, what)) as path, np.load(path) as kept:
            return dict(kept)

    def drop(self, part: int, what: str) -> None:
        """Forget what is not needed any more."""
        if self._place is None:
            self._here.pop(_name(part, what), None)
        else:
            self._place.remove(_name(part, what))

    def clear(self) -> None:
        self._here.clear()
        if self._place is not None:
            self._place.remove(FOLDER)


def _name(part: int, what: str) -> str:
    return f"{FOLDER}/{part:05d}-{what}.npz"
