"""SIFT features straight from the feature database (SQLite), one photo at a time, read-only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from quoin.stages.pose.colmap.database import open_read_only

Array = np.ndarray


class DescriptorReader:
    """Callable: photo id to its descriptors uint8 [n, 128] and their scales in pixels [n] (none where it has none)."""

    def __init__(self, database: Path) -> None:
        self._connection = open_read_only(database)

    def __call__(self, photo_id: int) -> tuple[UInt8[Array, "n d"], Float[Array, "n"]]:
        descriptors = self._read("SELECT rows, cols, data FROM descriptors WHERE image_id = ?", photo_id)
        keypoints = self._read("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", photo_id)
        if descriptors is None or keypoints is None:
            return np.zeros((0, 128), np.uint8), np.zeros(0, np.float32)
        shape = np.frombuffer(keypoints[2], np.float32).reshape(keypoints[:2])
        # x, y, scale, orientation; or x, y and the affine shape a11, a12, a21, a22
        scales = shape[:, 2] if keypoints[1] == 4 else np.hypot(shape[:, 2], shape[:, 4])
        return np.frombuffer(descriptors[2], np.uint8).reshape(descriptors[:2]), scales

    def _read(self, query: str, photo_id: int) -> tuple[int, int, bytes] | None:
        row = self._connection.execute(query, (photo_id + 1,)).fetchone()
        return row if row and row[0] else None

    def close(self) -> None:
        self._connection.close()
