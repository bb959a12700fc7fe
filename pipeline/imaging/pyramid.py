"""The levels of a photo's pyramid: level k is 2^k times smaller."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8

Array = np.ndarray


def build_pyramid(rgb: UInt8[Array, "h w 3"], levels: int) -> list[UInt8[Array, "_ _ 3"]]:
    """The photo and its halvings by 2 x 2 averages, sizes rounded down (an odd last row or column is dropped)."""
    out = [np.ascontiguousarray(rgb)]
    for _ in range(levels - 1):
        height, width = (max(2, size) // 2 * 2 for size in out[-1].shape[:2])
        even = np.resize(out[-1], (height, width, 3)) if min(out[-1].shape[:2]) < 2 else out[-1][:height, :width]
        blocks = even.reshape(height // 2, 2, width // 2, 2, 3).astype(np.uint16)
        out.append(((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8))
    return out


def resample_to_level(
    values: Shaped[Array, "h w"], level: int, target_level: int, shape: tuple[int, ...]
) -> Shaped[Array, "r c"]:
    """``values`` of ``level`` at level ``target_level``, of ``shape``: each pixel there has that of its first
    corner."""
    sizes = zip(shape, values.shape, strict=True)
    row, column = (np.minimum((np.arange(n) << target_level) >> level, m - 1) for n, m in sizes)
    return values[row[:, None], column]
