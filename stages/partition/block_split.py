"""Splitting the region into blocks: boxes of whole bricks, halved at equal cost until each is small enough.

The memory that training a block takes is known by sizes alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.lattice import BrickBox
from quoin.pipeline.storage.stage import PROCESS_BYTES, brick_bytes

Array = np.ndarray

NETWORK_BYTES = 1300 << 20  # initial SDF; later hash tables with Adam's moments, cached volume, SfM supervision
PIXEL_BYTES = 11  # colors, gray pyramid and mask of a photo, and the copy made while they are put together
BRICK_COPIES = 2  # SDF bricks in a list, then in one array


@dataclass(frozen=True)
class BrickCosts:
    """Bricks that hold points, and the cost of each as a share of the whole (sum 1)."""

    bricks: Int[Array, "m 3"]
    cost: Float[Array, "m"]

    def cost_in(self, box: BrickBox) -> float:
        """Total cost inside a box."""
        return float(self.cost[box.contains(self.bricks)].sum())


@dataclass(frozen=True)
class PointsByBrick:
    """Points sorted by the brick they lie in, so that the points of a box are found without scanning the others."""

    bricks: Int[Array, "m 3"]  # that hold points, by x, then y, then z
    offsets: Int[Array, "m+1"]  # into ``points``
    points: Int[Array, "p"]

    @classmethod
    def from_point_bricks(cls, point_bricks: Int[Array, "p 3"]) -> PointsByBrick:
        order = np.lexsort(point_bricks.T[::-1])
        sorted_bricks = point_bricks[order]
        new = np.ones(len(order), bool)
        new[1:] = np.any(np.diff(sorted_bricks, axis=0) != 0, axis=1)
        starts = np.flatnonzero(new)
        return cls(sorted_bricks[starts], np.append(starts, len(order)), order)

    def within(self, box: BrickBox) -> Int[Array, "k"]:
        """Points in the box, sorted."""
        first, last = np.searchsorted(self.bricks[:, 0], [box.low[0], box.high[0]])
        is_inside = first + np.flatnonzero(box.contains(self.bricks[first:last]))
        parts = [self.points[self.offsets[row] : self.offsets[row + 1]] for row in is_inside.tolist()]
        return np.sort(np.concatenate(parts)) if parts else self.points[:0]


def estimate_brick_costs(point_bricks: Int[Array, "p 3"], observations: Int[Array, "p"]) -> BrickCosts:
    """Cost of every brick with points: half by the observations in it, half the same for all."""
    bricks, which = np.unique(point_bricks, axis=0, return_inverse=True)
    observed = np.bincount(which.ravel(), observations, len(bricks))
    return BrickCosts(bricks, 0.5 * observed / max(observed.sum(), 1) + 0.5 / len(bricks))


def split_balanced(
    box: BrickBox, brick_costs: BrickCosts, side_limits: tuple[int, int]
) -> tuple[BrickBox, BrickBox] | None:
    """Two boxes of about equal cost, cut across the longest side that allows it; None where none does.

    ``side_limits`` are the minimum and maximum number of bricks of a side: no half is shorter than the minimum, and a
    side longer than the maximum is cut such that it ends in as few pieces as possible.
    """
    min_side, max_side = side_limits
    for axis in np.argsort([-s for s in box.shape], kind="stable"):
        low, high = box.low[axis], box.high[axis]
        planes = np.arange(low + min_side, high - min_side + 1)
        pieces = -(-(planes - low) // max_side) - (-(high - planes) // max_side)
        planes = planes[pieces <= max(2, -(-(high - low) // max_side))]
        if len(planes) == 0:
            continue
        is_inside = box.contains(brick_costs.bricks)
        at, cost = brick_costs.bricks[is_inside, axis], brick_costs.cost[is_inside]
        below = np.array([cost[at < plane].sum() for plane in planes])
        imbalance, off_middle = np.abs(2 * below - cost.sum()), np.abs(2 * planes - low - high)
        plane = int(planes[np.lexsort((off_middle, imbalance))[0]])
        first_high, second_low = list(box.high), list(box.low)
        first_high[axis] = second_low[axis] = plane
        return _box(box.low, first_high), _box(second_low, box.high)
    return None


def _box(low: Sequence[int], high: Sequence[int]) -> BrickBox:
    return BrickBox((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def split_into_cores(
    box: BrickBox,
    brick_costs: BrickCosts,
    fits: Callable[[BrickBox], bool],
    *,
    min_blocks: int,
    side_limits: tuple[int, int],
) -> list[BrickBox]:
    """Cores that tile ``box``: split while a side is too long or one does not fit, then until there are ``min_blocks``.

    The costliest core is split first; one that cannot be split stays as it is. Cores are returned in lattice order.
    """
    done: list[BrickBox] = []
    pending = [box]
    while pending:
        core = pending.pop()
        halves = (
            None if max(core.shape) <= side_limits[1] and fits(core) else split_balanced(core, brick_costs, side_limits)
        )
        if halves is None:
            done.append(core)
        else:
            pending.extend(halves)
    while len(done) < min_blocks:
        for core in sorted(done, key=lambda c: (-brick_costs.cost_in(c), c.low)):
            halves = split_balanced(core, brick_costs, side_limits)
            if halves is not None:
                done.remove(core)
                done.extend(halves)
                break
        else:
            break
    return sorted(done, key=lambda c: c.low)


# -- memory of a block, by sizes alone ---------------------------------------------------------------------------------


def machine_memory_bytes() -> int:
    """Memory of this machine, or of the container that this process runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def block_memory_bytes(pixels: int, n_bricks: int, brick_size: int) -> int:
    """Memory of training a block: ``pixels`` of all its photos at level 0, ``n_bricks`` of surface in its outer box."""
    bricks = n_bricks * brick_bytes(brick_size) * BRICK_COPIES
    return PROCESS_BYTES + NETWORK_BYTES + PIXEL_BYTES * pixels + bricks


def block_vram_bytes(pixels: int) -> int:
    """GPU memory of training a block: photos and network are on the device."""
    return NETWORK_BYTES + PIXEL_BYTES * pixels


def min_memory_bytes(photo_pixels: float, brick_size: int) -> int:
    """Least memory that any block takes: a surface of one brick, seen by two photos of half size."""
    return block_memory_bytes(int(2 * photo_pixels / 4), surface_bricks(1), brick_size)


def surface_bricks(n_point_bricks: int) -> int:
    """Bricks that the surface will pass through, from those with SfM points, which textureless surfaces lack."""
    return 2 * n_point_bricks + 8
