"""Blending of the SDFs of overlapping blocks on the lattice; the value of a sample depends on the sample alone.

Every block whose outer box holds a sample contributes with a weight that falls smoothly from 1 deep in its core to 0 at
the outer edge of its halo; weights are normalized (a partition of unity). A block's value at a sample comes from the
last, in lattice order, of its bricks that contain it; where it has no brick, it is the clip value (no surface here),
with the sign of the bricks around. Bricks that share a sample combine the same numbers in the same order, so that
shared samples are bit-identical and the extracted surface has no cracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from quoin.pipeline.geometry.lattice import BrickBox

Array = np.ndarray
Brick = tuple[int, int, int]

BRICK_OFFSETS = [
    (x, y, z) for x, y, z in product((-1, 0, 1), repeat=3)
]  # in the order in which bricks override one another
MIN_AXIS_WEIGHT = 1e-6  # of an axis at the outer edge of a halo, so that a block alone there still counts
MIN_SIGN_SHARE = 0.95  # of the samples around a component of absent bricks, that must agree on its sign


@dataclass(frozen=True)
class BlockSdf:
    """The SDF of one block: its boxes, its bricks, a function to read one, and the sign of absent bricks.

    ``read(row)`` returns samples [B+1, B+1, B+1] in voxels; ``absent_sign``: see ``absent_signs``.
    """

    core: BrickBox
    halo_bricks: int
    rows: dict[Brick, int]
    read: Callable[[int], Float[Array, "s s s"]]
    absent_sign: Int8[Array, "x y z"]

    @property
    def outer(self) -> BrickBox:
        return self.core.grow(self.halo_bricks)


def smoothstep(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """3x² - 2x³ on [0, 1], flat beyond; smoothstep(x) + smoothstep(1 - x) = 1."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def block_weight(core: BrickBox, halo_bricks: int, brick: Brick, size: int) -> Float[Array, "s s s"]:
    """Weight of a block at the samples of ``brick``, not yet normalized (``size`` cells per brick side).

    On each axis 0 at the halo's outer edge, 1/2 on the core's face, 1 as deep inside; the product over axes.
    """
    ramps = []
    for axis in range(3):
        sample = np.arange(size + 1, dtype=np.float64) + brick[axis] * size
        if halo_bricks == 0:
            ramps.append(np.ones(size + 1))
            continue
        width = 2.0 * halo_bricks * size
        from_low = sample - (core.low[axis] - halo_bricks) * size
        from_high = (core.high[axis] + halo_bricks) * size - sample
        ramps.append(np.maximum(smoothstep(from_low / width) * smoothstep(from_high / width), MIN_AXIS_WEIGHT))
    return ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]


def _shared_slices(offset: Brick, size: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Samples that brick b and brick b + offset share: slices into b, slices into the neighbor."""
    own_slices = {-1: slice(0, 1), 0: slice(None), 1: slice(size, size + 1)}
    neighbor_slices = {-1: slice(size, size + 1), 0: slice(None), 1: slice(0, 1)}
    return tuple(own_slices[o] for o in offset), tuple(neighbor_slices[o] for o in offset)


def block_values(
    block_sdf: BlockSdf, brick: Brick, size: int, clip_voxels: float
) -> tuple[Float[Array, "s s s"], Bool[Array, "s s s"]] | None:
    """Values of a block at the samples of ``brick``, and which of them are valid; None if none is."""
    low, high = block_sdf.outer.low, block_sdf.outer.high
    values = np.zeros((size + 1,) * 3, np.float32)
    is_valid = np.zeros(values.shape, bool)
    held_bricks = []
    for offset in BRICK_OFFSETS:
        neighbor = (brick[0] + offset[0], brick[1] + offset[1], brick[2] + offset[2])
        if not all(w <= n < h for n, w, h in zip(neighbor, low, high, strict=True)):
            continue
        row = block_sdf.rows.get(neighbor)
        if row is not None:
            held_bricks.append((offset, row))
            continue
        sign = block_sdf.absent_sign[neighbor[0] - low[0], neighbor[1] - low[1], neighbor[2] - low[2]]
        if sign:
            own_slices, _ = _shared_slices(offset, size)
            values[own_slices], is_valid[own_slices] = sign * clip_voxels, True
    for offset, row in held_bricks:
        if offset < (0, 0, 0) and brick in block_sdf.rows:
            continue  # the brick itself comes later and overrides all of it
        own_slices, neighbor_slices = _shared_slices(offset, size)
        values[own_slices], is_valid[own_slices] = block_sdf.read(row)[neighbor_slices], True
    return (values, is_valid) if is_valid.any() else None


def blend_brick(block_sdfs: list[BlockSdf], brick: Brick, size: int, clip_voxels: float) -> Float[Array, "s s s"]:
    """Blended samples of ``brick`` in voxels; a sample without any block is outside.

    ``block_sdfs`` must always come in the same order: sums are bit-identical only then.
    """
    total = np.zeros((size + 1,) * 3)
    weight = np.zeros(total.shape)
    for block_sdf in block_sdfs:
        block_result = block_values(block_sdf, brick, size, clip_voxels)
        if block_result is None:
            continue
        values, is_valid = block_result
        share = np.where(is_valid, block_weight(block_sdf.core, block_sdf.halo_bricks, brick, size), 0.0)
        total += share * values
        weight += share
    is_valid = weight > 0
    return np.where(is_valid, total / np.where(is_valid, weight, 1.0), clip_voxels).astype(np.float32)


def touching_boxes(low: Int[Array, "n 3"], high: Int[Array, "n 3"], brick: Brick) -> Int[Array, "k"]:
    """Which outer boxes (``low`` inclusive, ``high`` exclusive, in bricks) share a sample with ``brick``."""
    return np.flatnonzero(np.all((low <= np.array(brick) + 1) & (high >= np.array(brick)), axis=1))


def absent_signs(
    outer: BrickBox, bricks: Int[Array, "m 3"], read: Callable[[int], Float[Array, "s s s"]]
) -> Int8[Array, "x y z"]:
    """Sign of the SDF in every absent brick of ``outer``: +1 outside, -1 inside, 0 unknown or not absent.

    No surface passes through an absent brick, so connected absent bricks share one sign: that of the samples on the
    faces of the bricks around. Where these disagree, or there are none, the sign is unknown.
    """
    from scipy import ndimage

    held = np.zeros(outer.shape, bool)
    at = np.asarray(bricks, np.int64) - np.array(outer.low)
    inside = np.all((at >= 0) & (at < np.array(outer.shape)), axis=1)
    held[tuple(at[inside].T)] = True
    labels, count = ndimage.label(~held)
    votes = np.zeros((count + 1, 2))
    for row in np.flatnonzero(inside):
        samples: Array | None = None
        for axis, side in product(range(3), (0, 1)):
            neighbor = at[row].copy()
            neighbor[axis] += 2 * side - 1
            if not 0 <= neighbor[axis] < outer.shape[axis] or held[tuple(neighbor)]:
                continue
            samples = read(int(row)) if samples is None else samples
            face = np.take(samples, -side, axis=axis)
            votes[labels[tuple(neighbor)]] += (int((face < 0).sum()), face.size)
    share = votes[:, 0] / np.maximum(votes[:, 1], 1)
    sign = np.where(share <= 1 - MIN_SIGN_SHARE, 1, np.where(share >= MIN_SIGN_SHARE, -1, 0)) * (votes[:, 1] > 0)
    sign[0] = 0
    return sign[labels].astype(np.int8)


def bricks_to_march(block_sdfs: list[BlockSdf]) -> Int[Array, "m 3"]:
    """Bricks that may hold the blended surface: those of any block, and those where blocks disagree on the sign."""
    bricks_with_surface = {brick for block_sdf in block_sdfs for brick in block_sdf.rows}
    for i, a in enumerate(block_sdfs):
        for b in block_sdfs[i + 1 :]:
            overlap = a.outer.intersect(b.outer)
            if overlap.count == 0:
                continue
            bricks = overlap.bricks()
            sign_a, sign_b = (s.absent_sign[tuple((bricks - np.array(s.outer.low)).T)] for s in (a, b))
            bricks_with_surface.update((int(x), int(y), int(z)) for x, y, z in bricks[sign_a * sign_b < 0])
    return np.array(sorted(bricks_with_surface), np.int64).reshape(-1, 3)
