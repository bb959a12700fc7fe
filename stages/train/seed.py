"""What SfM already knows of a block: an SDF to start from, tiles worth drawing, photos worth comparing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt, maximum_filter
from scipy.spatial import cKDTree

Array = np.ndarray


def seed_sdf(
    points: Float[Array, "p 3"],
    towards: Float[Array, "p 3"],
    low: Float[Array, "3"],
    spacing: float,
    shape: tuple[int, int, int],
) -> Float[Array, "x y z"]:
    """A signed distance to start from: that of a thin solid skin behind the points known to lie on the surface.

    ``towards`` [p, 3] are unit directions from the points to who saw them: that side is outside. Behind a point the
    skin is as thick as the points are sparse (2 to 6 cells); farther behind nothing is known, and space counts as free
    again, so that distance itself keeps it empty.
    """
    if len(points) == 0:
        return np.ones(shape, np.float32)
    tree = cKDTree(points)
    neighbour = tree.query(points, k=min(5, len(points)), workers=-1)[0].reshape(len(points), -1)
    skin = np.clip(0.75 * neighbour[:, -1] / spacing, 2.0, 6.0) * spacing
    occupied = np.zeros(shape, bool)
    cell = np.clip(np.round((points - low) / spacing).astype(int), 0, np.array(shape) - 1)
    occupied[tuple(cell.T)] = True
    distance = distance_transform_edt(~occupied).astype(np.float32) * spacing
    near = np.argwhere(distance < 4.0 * spacing + skin.max())
    exact, nearest = tree.query(near * spacing + low, workers=-1)
    outwards = ((near * spacing + low - points[nearest]) * towards[nearest]).sum(axis=1) >= 0
    behind = np.maximum(-exact, exact - 2.0 * skin[nearest])
    distance[tuple(near.T)] = np.where(outwards, exact, behind)
    return distance


class DepthMap(NamedTuple):
    """A believed depth map [h, w] (0 = not known) with intrinsics [4] at its own size and pose [3, 4]."""

    depth: Float[Array, "h w"]
    intrinsics: Float[Array, "4"]
    cam_from_local: Float[Array, "3 4"]


def fuse_depths(
    positions: Float[Array, "n 3"], depth_maps: list[DepthMap], truncation: float
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Mean truncated signed distance along the viewing rays, and how many maps it stands on (Curless & Levoy 1996).

    A map says nothing of positions farther than ``truncation`` behind its surface.
    """
    total, count = np.zeros(len(positions), np.float32), np.zeros(len(positions), np.float32)
    positions = positions.astype(np.float32)
    for depth, k, pose in depth_maps:
        camera = positions @ pose[:, :3].T.astype(np.float32) + pose[:, 3].astype(np.float32)
        z = np.maximum(camera[:, 2], 1e-6)
        column = np.floor(camera[:, 0] / z * k[0] + k[2]).astype(np.int64)
        row = np.floor(camera[:, 1] / z * k[1] + k[3]).astype(np.int64)
        height, width = depth.shape
        inside = (camera[:, 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        surface = np.where(inside, depth[row.clip(0, height - 1), column.clip(0, width - 1)], 0.0)
        ahead = surface - camera[:, 2]
        seen = (surface > 0) & (ahead > -truncation)
        total += np.where(seen, np.minimum(ahead, truncation), 0.0)
        count += seen
    return total / np.maximum(count, 1.0), count


def thin_out(points: Float[Array, "p 3"], cell: float, limit: int, rng: np.random.Generator) -> Int[Array, "q"]:
    """Indices of at most one point per cell of a grid, and of at most ``limit`` of them, at random."""
    order = rng.permutation(len(points))
    key = np.floor(points[order] / cell).astype(np.int64)
    first = np.unique(key, axis=0, return_index=True)[1]
    return order[rng.permutation(first)[:limit]]


def tile_weights(
    sizes: Int[Array, "k 2"],
    observed: list[tuple[Float[Array, "_ 2"], Array]],
    tile: int,
    background: float = 0.25,
) -> list[Float[Array, "_ _"]]:
    """How much each tile of each photo shows of the block, from the tracks seen in it.

    ``observed[k]`` = pixel positions [m, 2] of photo k's tracks and their kind [m]: 1 inside the block, -1 in front of
    it, 0 behind. Tiles with a track inside (or next to one) weigh 1, tiles that only see what lies in front 0, others
    ``background``.
    """
    out = []
    for (width, height), (xy, kind) in zip(sizes, observed, strict=True):
        rows, columns = -(-int(height) // tile), -(-int(width) // tile)
        cell = np.clip((xy // tile).astype(int), 0, [columns - 1, rows - 1])
        inside = np.zeros((rows, columns))
        before = np.zeros((rows, columns))
        np.add.at(inside, (cell[kind == 1, 1], cell[kind == 1, 0]), 1)
        np.add.at(before, (cell[kind == -1, 1], cell[kind == -1, 0]), 1)
        near_inside = maximum_filter(inside, 5) > 0
        near_before = maximum_filter(before, 3) > 0
        out.append(np.where(near_inside, 1.0, np.where(near_before, 0.0, background)))
    return out
