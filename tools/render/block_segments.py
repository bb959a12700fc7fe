"""Which block renders which stretch of a ray.

The cores are boxes that do not overlap. A ray is rendered by the blocks whose cores it crosses, each from where it
enters the core to where it leaves it. The first block also has what lies before its core inside its outer box, the last
one what lies behind, and all beyond. A ray that crosses no core belongs to the block whose outer box it enters first,
or, meeting none, to the one nearest to the camera, for what lies beyond.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray


class Boxes(NamedTuple):
    """Cores and outer boxes of the blocks in the world: [blocks, 2, 3], low and high corners."""

    cores: Float[Array, "b 2 3"]
    outers: Float[Array, "b 2 3"]


class Owners(NamedTuple):
    """The first and the last block on each ray."""

    first: Int[Array, "n"]
    last: Int[Array, "n"]


def crossing(
    origin: Float[Array, "3"], directions: Float[Array, "n 3"], box: Float[Array, "2 3"]
) -> tuple[Float[Array, "n"], Float[Array, "n"], Bool[Array, "n"]]:
    """Where rays enter and leave a box, at or after their origin; and whether they cross it (slab method)."""
    inverse = 1.0 / np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    a, b = (box[0] - origin) * inverse, (box[1] - origin) * inverse
    enter = np.maximum(np.minimum(a, b).max(axis=1), 0.0)
    leave = np.maximum(np.maximum(a, b).min(axis=1), enter)
    return enter, leave, leave > enter


def owners(origin: Float[Array, "3"], directions: Float[Array, "n 3"], boxes: Boxes) -> Owners:
    """Who has the beginning and the end of each ray."""
    n = len(directions)
    first, last, outer = (np.full(n, -1) for _ in range(3))
    nearest, farthest, entered = np.full(n, np.inf), np.full(n, -np.inf), np.full(n, np.inf)
    for block in range(len(boxes.cores)):
        enter, leave, crosses = crossing(origin, directions, boxes.cores[block])
        earlier, later = crosses & (enter < nearest), crosses & (leave > farthest)
        first[earlier], nearest[earlier] = block, enter[earlier]
        last[later], farthest[later] = block, leave[later]
        enter, _, crosses = crossing(origin, directions, boxes.outers[block])
        earlier = crosses & (enter < entered)
        outer[earlier], entered[earlier] = block, enter[earlier]
    outer[outer < 0] = int(np.linalg.norm(boxes.outers.mean(axis=1) - origin, axis=1).argmin())
    return Owners(np.where(first < 0, outer, first), np.where(last < 0, outer, last))


def stretch(
    origin: Float[Array, "3"], directions: Float[Array, "n 3"], boxes: Boxes, owned: Owners, block: int
) -> tuple[Float[Array, "n"], Float[Array, "n"], Bool[Array, "n"]]:
    """Where ``block`` begins and ends to render each ray, and whether the ray ends in it; nothing is begin = end."""
    enter, leave, crosses = crossing(origin, directions, boxes.cores[block])
    outer_enter, outer_leave, _ = crossing(origin, directions, boxes.outers[block])
    is_first, is_last = owned.first == block, owned.last == block
    begin = np.where(is_first, outer_enter, enter)
    end = np.where(is_last, outer_leave, np.where(crosses, leave, begin))
    return begin, end, is_last
