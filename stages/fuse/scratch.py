"""Scratch arrays of chunks between the steps of fusion: in memory, or in files that workers share."""

from __future__ import annotations

import numpy as np

from quoin.pipeline.storage.backend import LocalStorage

Array = np.ndarray

SCRATCH_FOLDER = "work/fuse"


class ScratchStore:
    """Named arrays of chunks, in ``files``, or in memory if that is None."""

    def __init__(self, files: LocalStorage | None) -> None:
        self._files, self._in_memory = files, dict[str, dict[str, Array]]()

    def put(self, chunk: int, name: str, **arrays: Array) -> None:
        """Store arrays of a chunk under a name, replacing earlier ones."""
        if self._files is None:
            self._in_memory[_name(chunk, name)] = arrays
        else:
            with self._files.open_for_upload(_name(chunk, name)) as path, open(path, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

    def get(self, chunk: int, name: str) -> dict[str, Array]:
        """Return the arrays stored under a name."""
        if self._files is None:
            return self._in_memory[_name(chunk, name)]
        with self._files.open_downloaded(_name(chunk, name)) as path, np.load(path) as arrays:
            return dict(arrays)

    def drop(self, chunk: int, name: str) -> None:
        """Delete the arrays stored under a name."""
        if self._files is None:
            self._in_memory.pop(_name(chunk, name), None)
        else:
            self._files.remove(_name(chunk, name))

    def clear(self) -> None:
        """Delete all arrays."""
        self._in_memory.clear()
        if self._files is not None:
            self._files.remove(SCRATCH_FOLDER)


def _name(chunk: int, name: str) -> str:
    return f"{SCRATCH_FOLDER}/{chunk:05d}-{name}.npz"
