"""SDF samples of a trained field on the lattice: of bricks near the surface, in full for cells near it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import zoom

from quoin.fields.mise import mise
from quoin.pipeline.geometry.lattice import BrickBox

Array = np.ndarray
COARSE_STRIDE_VOXELS = 4  # coarse samples of a brick lie this many voxels apart
NEAR_HALF_DIAGONALS = 1.5  # a coarse cell is near the surface when |sdf| <= NEAR_HALF_DIAGONALS half-diagonals of it


def sample_bricks(
    sdf_voxels: Callable[[Float[Array, "n 3"]], Float[Array, "n"]],
    bricks: Int[Array, "m 3"],
    brick_size: int,
    clip: float,
    advance: Callable[[float], None] | None = None,
) -> tuple[Int[Array, "k 3"], Float[Array, "k s s s"]]:
    """SDF in voxels of the ``bricks`` [M, 3] that hold surface: their coordinates, and samples [k, B+1, B+1, B+1].

    ``sdf_voxels`` takes continuous sample indices of the lattice. Bricks are selected by every fourth sample; in those
    kept, cells near the surface are evaluated in full, the rest is interpolated (only its sign is used).
    """
    coarse_axis = np.arange(0, brick_size + 1, COARSE_STRIDE_VOXELS)
    n_coarse = len(coarse_axis)
    coarse_grid = np.stack(np.meshgrid(coarse_axis, coarse_axis, coarse_axis, indexing="ij"), -1).reshape(-1, 3)
    fine_axis = np.arange(brick_size + 1)
    fine_grid = np.stack(np.meshgrid(fine_axis, fine_axis, fine_axis, indexing="ij"), -1)
    limit = NEAR_HALF_DIAGONALS * COARSE_STRIDE_VOXELS * np.sqrt(3.0) / 2.0
    kept, values = [], []
    for done, chunk in enumerate(np.array_split(bricks, max(1, len(bricks) // 64))):
        base = chunk * brick_size
        coarse = sdf_voxels((base[:, None] + coarse_grid).reshape(-1, 3)).reshape(-1, n_coarse, n_coarse, n_coarse)
        near = _cells_near(coarse, limit)
        for brick, grid, cells in zip(chunk, coarse, near, strict=True):
            if not cells.any():
                continue
            fine = zoom(grid, (brick_size + 1) / n_coarse, order=1, grid_mode=False, mode="nearest")
            active = _samples_of(cells, brick_size)
            fine[active] = sdf_voxels((brick * brick_size + fine_grid[active]).reshape(-1, 3))
            if fine.min() <= 0 <= fine.max():
                kept.append(brick)
                values.append(np.clip(fine, -clip, clip).astype(np.float16))
        if advance is not None:
            advance((done + 1) * 64 / max(len(bricks), 64))
    side = brick_size + 1
    if not kept:
        return np.zeros((0, 3), np.int64), np.zeros((0, side, side, side), np.float16)
    return np.array(kept), np.stack(values)


def sample_level_set(
    value: Callable[[Int[Array, "n 3"]], Float[Array, "n"]], box: BrickBox, brick_size: int, clip: float
) -> tuple[Int[Array, "k 3"], Float[Array, "k s s s"]]:
    """As ``sample_bricks``, of all bricks of ``box``, for a field of which only the sign counts: density, occupancy.

    The values of ``mise`` become a distance in voxels near the zero level: f / |∇f|, true to first order (Taubin
    1994). ``value`` takes sample indices of the lattice. Memory: some 10 bytes for each sample of the box.
    """
    low = np.array(box.low) * brick_size
    x, y, z = box.shape
    cells = (x * brick_size, y * brick_size, z * brick_size)
    values, _ = mise(lambda index: value(index + low), cells, math.gcd(COARSE_STRIDE_VOXELS, brick_size))
    side = brick_size + 1
    kept, out = [np.zeros((0, 3), np.int64)], [np.zeros((0, side, side, side), np.float16)]
    for brick in box.bricks():
        first = (brick - np.array(box.low)) * brick_size
        before = np.minimum(first, 1)  # with neighbors on all sides, so that bricks agree on the samples they share
        around = values[tuple(slice(f - b, f + side + 1) for f, b in zip(first, before, strict=True))]
        inner = tuple(slice(b, b + side) for b in before)
        if around[inner].min() <= 0 <= around[inner].max():
            kept.append(brick[None])
            out.append(np.clip(_in_voxels(around)[inner], -clip, clip).astype(np.float16)[None])
    return np.concatenate(kept), np.concatenate(out)


def _in_voxels(values: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """f / |∇f|, the gradient by central differences."""
    slope = np.sqrt(sum(part * part for part in np.gradient(values)))
    return values / np.maximum(slope, 1e-6 * np.abs(values).max() + 1e-30)


def _cells_near(coarse: Float[Array, "m c c c"], limit: float) -> Array:
    """True [m, c-1, c-1, c-1] for coarse cells that may hold surface: a sign change or a small |sdf| at a corner."""
    low = high = coarse
    for axis in (1, 2, 3):
        first = [slice(None)] * 4
        second = [slice(None)] * 4
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        low = np.minimum(low[tuple(first)], low[tuple(second)])
        high = np.maximum(high[tuple(first)], high[tuple(second)])
    return ((low <= 0) & (high >= 0)) | (np.minimum(np.abs(low), np.abs(high)) <= limit)


def _samples_of(cells: Array, brick_size: int) -> Array:
    """True [B+1, B+1, B+1] for samples of active coarse cells, borders included."""
    out = np.zeros((brick_size + 1,) * 3, bool)
    inner = cells.repeat(COARSE_STRIDE_VOXELS, 0).repeat(COARSE_STRIDE_VOXELS, 1).repeat(COARSE_STRIDE_VOXELS, 2)
    for dx in (0, 1):
        for dy in (0, 1):
            for dz in (0, 1):
                out[dx : dx + brick_size, dy : dy + brick_size, dz : dz + brick_size] |= inner
    return out
