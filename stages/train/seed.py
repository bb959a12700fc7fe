"""What SfM already knows of a block: an SDF to start from, tiles worth drawing, photos worth comparing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter
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
    again, so that distance itself keeps it empty. Slightly smoothed.
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
    near = np.argwhere(distance < 14.0 * spacing)
    exact, nearest = tree.query(near * spacing + low, workers=-1)
    outwards = ((near * spacing + low - points[nearest]) * towards[nearest]).sum(axis=1) >= 0
    behind = np.maximum(-exact, exact - 2.0 * skin[nearest])
    distance[tuple(near.T)] = np.where(outwards, exact, behind)
    return gaussian_filter(distance, 0.7)


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
