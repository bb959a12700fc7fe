"""Splitting the region into blocks: boxes of whole bricks, halved at equal cost until each is small enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.lattice import BrickBox

Array = np.ndarray


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
