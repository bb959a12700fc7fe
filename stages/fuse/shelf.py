"""Where what is known of each part waits while others are worked on: in memory where there is one, else in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

Array = np.ndarray


class Shelf:
    """Named arrays by part; kept below ``folder`` unless that is None. ``clear`` leaves nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._here = folder, dict[str, dict[str, Array]]()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def put(self, part: int, what: str, **arrays: Array) -> None:
        """Keep arrays of a part under a word; what was there gives way."""
        name = f"{part:05d}-{what}"
        if self._folder is None:
            self._here[name] = arrays
        else:
            np.savez(self._folder / f"{name}.npz", allow_pickle=False, **arrays)

    def get(self, part: int, what: str) -> dict[str, Array]:
        """The arrays again."""
        name = f"{part:05d}-{what}"
        if self._folder is None:
            return self._here[name]
        with np.load(self._folder / f"{name}.npz") as kept:
            return dict(kept)

    def drop(self, part: int, what: str) -> None:
        """Forget what is not needed any more."""
        name = f"{part:05d}-{what}"
        self._here.pop(name, None)
        if self._folder is not None:
            (self._folder / f"{name}.npz").unlink()

    def clear(self) -> None:
        self._here.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
