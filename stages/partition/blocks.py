"""Blocks: boxes of whole bricks, split by balanced cost until each is small enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.lattice import BrickBox

Array = np.ndarray


@dataclass(frozen=True)
class Load:
    """What there is to do: bricks that hold points, and the cost of each (shares of the whole, sum 1)."""

    bricks: Int[Array, "m 3"]
    cost: Float[Array, "m"]

    def of(self, box: BrickBox) -> float:
        """Cost inside a box."""
        return float(self.cost[box.contains(self.bricks)].sum())


def point_load(point_bricks: Int[Array, "p 3"], observations: Int[Array, "p"]) -> Load:
    """Half of the cost goes with the observations in a brick, half with the brick itself."""
    bricks, which = np.unique(point_bricks, axis=0, return_inverse=True)
    seen = np.bincount(which.ravel(), observations, len(bricks))
    return Load(bricks, 0.5 * seen / max(seen.sum(), 1) + 0.5 / len(bricks))


def split(box: BrickBox, load: Load, min_side: int) -> tuple[BrickBox, BrickBox] | None:
    """Two boxes of about equal cost, cut across the longest side that allows ``min_side`` bricks on both; or None."""
    for axis in np.argsort([-s for s in box.shape], kind="stable"):
        first, last = box.low[axis] + min_side, box.high[axis] - min_side
        if first > last:
            continue
        here = box.contains(load.bricks)
        at, cost = load.bricks[here, axis], load.cost[here]
        below = np.array([cost[at < plane].sum() for plane in range(first, last + 1)])
        uneven = np.abs(2 * below - cost.sum())
        middle = np.abs(np.arange(first, last + 1) - (box.low[axis] + box.high[axis]) / 2)
        plane = first + int(np.lexsort((middle, uneven))[0])
        low_side, high_side = list(box.high), list(box.low)
        low_side[axis] = high_side[axis] = plane
        return BrickBox(box.low, (low_side[0], low_side[1], low_side[2])), BrickBox(
            (high_side[0], high_side[1], high_side[2]), box.high
        )
    return None


def partition(
    box: BrickBox, load: Load, too_large: Callable[[BrickBox], bool], *, min_blocks: int, min_side: int
) -> list[BrickBox]:
    """Cores that tile ``box``: split while one is ``too_large``, then the costliest until there are ``min_blocks``.

    A core that cannot be split any more stays as it is; cores come in lattice order.
    """
    done: list[BrickBox] = []
    waiting = [box]
    while waiting:
        core = waiting.pop()
        halves = split(core, load, min_side) if too_large(core) else None
        if halves is None:
            done.append(core)
        else:
            waiting.extend(halves)
    while len(done) < min_blocks:
        for core in sorted(done, key=lambda c: (-load.of(c), c.low)):
            halves = split(core, load, min_side)
            if halves is not None:
                done.remove(core)
                done.extend(halves)
                break
        else:
            break
    return sorted(done, key=lambda c: c.low)
