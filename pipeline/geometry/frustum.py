"""Which points a camera may see, found without asking each: points in cells, cells against the sides of a frustum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.rays import normalize

Array = np.ndarray
POINTS_PER_CELL = 256


def frustum_query(
    points: Float[Array, "p 3"],
) -> Callable[[Float[Array, "3 4"], Float[Array, "4"], tuple[int, int]], Int[Array, "_"]]:
    """A function of (camera from the points' frame, intrinsics, (width, height)): sorted indices of points.

    They hold every point before the camera that its picture shows, and others near by: all in cells of a cubic grid
    whose bounding sphere meets the frustum. A camera costs as much as it has before it, and a little per cell.
    """
    if len(points) == 0:
        return lambda *_: np.zeros(0, np.int64)
    low, high = points.min(axis=0), points.max(axis=0)
    side = _cell_side(high - low, len(points))
    cell = ((points - low) / side).astype(np.int64)
    shape = cell.max(axis=0) + 1
    cell_id = np.ravel_multi_index(tuple(cell.T), tuple(shape))
    order = np.argsort(cell_id, kind="stable")
    starts = np.flatnonzero(np.diff(cell_id[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    sorted_points = points[order]
    lows, highs = np.minimum.reduceat(sorted_points, starts), np.maximum.reduceat(sorted_points, starts)
    cell_centers, radii = (lows + highs) / 2, np.linalg.norm(highs - lows, axis=1) / 2 * (1 + 1e-5) + 1e-9

    def find(cam_from_points: Array, intrinsics: Array, size: tuple[int, int]) -> Array:
        fx, fy, cx, cy = intrinsics
        centers_cam = cell_centers @ cam_from_points[:, :3].T + cam_from_points[:, 3]
        sides = np.array([(fx, 0, cx), (-fx, 0, size[0] - cx), (0, fy, cy), (0, -fy, size[1] - cy), (0, 0, 1)], float)
        visible_cells = np.flatnonzero(((centers_cam @ normalize(sides).T) >= -radii[:, None]).all(axis=1))
        parts = [order[a:b] for a, b in zip(starts[visible_cells].tolist(), ends[visible_cells].tolist(), strict=True)]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    return find


def _cell_side(extent: Float[Array, "3"], count: int) -> float:
    """Side of cells of which a surface over the two longest sides of a box has POINTS_PER_CELL points each."""
    _, b, a = np.sort(extent)
    area = max(float(a * b), float(a) ** 2 / 100, 1e-12)
    return max(float(np.sqrt(area * POINTS_PER_CELL / count)), float(a) / 1000, 1e-9)
