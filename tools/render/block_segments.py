"""Segments of rays by block: which block renders which part of a ray, and front-to-back compositing of the parts.

The cores are boxes that do not overlap. A ray is rendered by the blocks whose cores it crosses, each from where it
enters the core to where it leaves it. The first block also renders what lies in front of its core inside its outer box;
the last one what lies behind its core, and the background. A ray that crosses no core belongs to the block whose outer
box it enters first; one that meets no box to the block nearest to the camera, for the background.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.cameras import intersect_ray_box

Array = np.ndarray


class BlockBoxes(NamedTuple):
    """Cores and outer boxes of the blocks in the world: [blocks, 2, 3], low and high corners."""

    cores: Float[Array, "b 2 3"]
    outers: Float[Array, "b 2 3"]


class RayEndBlocks(NamedTuple):
    """The first and the last block on each ray."""

    first: Int[Array, "n"]
    last: Int[Array, "n"]


def intersect_box(
    origin: Float[Array, "3"], directions: Float[Array, "n 3"], box: Float[Array, "2 3"]
) -> tuple[Float[Array, "n"], Float[Array, "n"], Bool[Array, "n"]]:
    """Distances at which rays enter and leave a box, from 0 on; and whether they cross it (slab method)."""
    near, far = intersect_ray_box(origin, directions, *box)
    return near, far, far > near


def find_end_blocks(origin: Float[Array, "3"], directions: Float[Array, "n 3"], boxes: BlockBoxes) -> RayEndBlocks:
    """The blocks that render the beginning and the end of each ray."""
    n = len(directions)
    first, last, outer = (np.full(n, -1) for _ in range(3))
    nearest, farthest, entered = np.full(n, np.inf), np.full(n, -np.inf), np.full(n, np.inf)
    for block in range(len(boxes.cores)):
        near, far, is_hit = intersect_box(origin, directions, boxes.cores[block])
        earlier, later = is_hit & (near < nearest), is_hit & (far > farthest)
        first[earlier], nearest[earlier] = block, near[earlier]
        last[later], farthest[later] = block, far[later]
        near, _, is_hit = intersect_box(origin, directions, boxes.outers[block])
        earlier = is_hit & (near < entered)
        outer[earlier], entered[earlier] = block, near[earlier]
    outer[outer < 0] = int(np.linalg.norm(boxes.outers.mean(axis=1) - origin, axis=1).argmin())
    return RayEndBlocks(np.where(first < 0, outer, first), np.where(last < 0, outer, last))


def block_segments(
    origin: Float[Array, "3"], directions: Float[Array, "n 3"], boxes: BlockBoxes, end_blocks: RayEndBlocks, block: int
) -> tuple[Float[Array, "n"], Float[Array, "n"], Bool[Array, "n"]]:
    """The segment of each ray that ``block`` renders (empty where begin = end), and whether the ray ends in it."""
    near, far, is_hit = intersect_box(origin, directions, boxes.cores[block])
    outer_near, outer_far, _ = intersect_box(origin, directions, boxes.outers[block])
    is_first, is_last = end_blocks.first == block, end_blocks.last == block
    begin = np.where(is_first, outer_near, near)
    end = np.where(is_last, outer_far, np.where(is_hit, far, begin))
    return begin, end, is_last


def composite(
    ray: Int[Array, "m"], begin_m: Float[Array, "m"], values: Float[Array, "m v"], opacity: Float[Array, "m"], n: int
) -> tuple[Float[Array, "n v"], Float[Array, "n"]]:
    """Values and opacity of rays 0..n-1 from segments in any order: Σₖ vₖ Πⱼ<ₖ (1 − oⱼ), 1 − Πₖ (1 − oₖ).

    Segment k belongs to ray ``ray[k]`` and lies behind the segments of that ray that begin before it; its ``values``
    are already weighted by the opacity within the segment (Porter & Duff 1984, over).
    """
    order = np.lexsort((begin_m, ray))
    ray, values, opacity = ray[order], values[order], opacity[order]
    starts = np.flatnonzero(np.diff(ray, prepend=-1))
    rank = np.arange(len(ray)) - np.repeat(starts, np.diff(starts, append=len(ray)))
    out, transmittance = np.zeros((n, values.shape[1]), np.float32), np.ones(n, np.float32)
    for depth in range(int(rank.max(initial=-1)) + 1):
        is_rank = rank == depth
        rays = ray[is_rank]
        out[rays] += transmittance[rays, None] * values[is_rank]
        transmittance[rays] *= 1.0 - opacity[is_rank]
    return out, 1.0 - transmittance
