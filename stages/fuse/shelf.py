"""Where what is known of each part waits while others are worked on: in memory where there is one, else in a folder."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import numpy as np

Array = np.ndarray


class Shelf:
    """Named arrays by part; kept below ``folder`` unless that is None, where several processes may see them.

    ``clear`` leaves nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._here = folder, dict[str, dict[str, Array]]()

    @classmethod
    def empty(cls, folder: Path | None) -> Shelf:
        """A new shelf, whatever an earlier one has left there."""
        shelf = cls(folder)
        shelf.clear()
        if folder is not None:
            folder.mkdir(parents=True)
        return shelf

    def put(self, part: int, what: str, **arrays: Array) -> None:
        """Keep arrays of a part under a word; what was there gives way."""
        name = f"{part:05d}-{what}"
        if self._folder is None:
            self._here[name] = arrays
        else:
            unfinished = self._folder / f"{name}-{secrets.token_hex(4)}.part"  # whoever does the same again has its own
            with open(unfinished, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(unfinished, self._folder / f"{name}.npz")

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
            (self._folder / f"{name}.npz").unlink(missing_ok=True)

    def clear(self) -> None:
        self._here.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
