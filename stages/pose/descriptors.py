"""SIFT descriptors straight from the feature database (SQLite), one photo at a time, read-only."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

Array = np.ndarray


class DescriptorReader:
    """Callable: photo id to its descriptors uint8 [n, 128] (none where the photo has none)."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def __call__(self, photo_id: int) -> UInt8[Array, "n d"]:
        query = "SELECT rows, cols, data FROM descriptors WHERE image_id = ?"
        row = self._connection.execute(query, (photo_id + 1,)).fetchone()
        if row is None or not row[0]:
            return np.zeros((0, 128), np.uint8)
        return np.frombuffer(row[2], np.uint8).reshape(row[0], row[1])

    def close(self) -> None:
        self._connection.close()
