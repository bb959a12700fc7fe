"""Pinhole cameras in numpy: their centers, projections, rays and frusta; and where rays cross axis-aligned boxes.

Pixel (0, 0) is the corner of the first pixel; its centre is at (0.5, 0.5), as in COLMAP. Camera axes: x right, y down,
z forward. ``intrinsics`` = [fx, fy, cx, cy] in pixels of the undistorted photo.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array = np.ndarray

MIN_DIRECTION_COMPONENT = 1e-9  # a smaller component of a direction counts as this: the slab test divides by it
POINTS_PER_CELL = 256


def normalize(vectors: Float[Array, "*n d"], eps: float = 1e-12) -> Float[Array, "*n d"]:
    """Unit vectors along the last axis; a vector shorter than ``eps`` is divided by ``eps``, so zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), eps)


def intersect_ray_box(
    origins: Float[Array, "*n 3"], directions: Float[Array, "n 3"], low: Float[Array, "3"], high: Float[Array, "3"]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Ray parameters (near, far) at which rays enter and leave a box (slab method, Kay & Kajiya 1986).

    0 <= near <= far; a ray misses the box where far = near. The float32 twin in torch, for the renderer, is
    ``fields.rays.intersect_ray_box``.
    """
    tiny = np.abs(directions) < MIN_DIRECTION_COMPONENT
    safe = np.where(tiny, MIN_DIRECTION_COMPONENT, directions)
    a, b = (low - origins) / safe, (high - origins) / safe
    near = np.maximum(np.minimum(a, b).max(axis=1), 0.0)
    return near, np.maximum(np.maximum(a, b).min(axis=1), near)


def centers_world(cam_from_world: Float[Array, "n 3 4"]) -> Float[Array, "n 3"]:
    """Centers of many cameras in the world: ``-Rᵀ t``."""
    return -np.einsum("nji,nj->ni", cam_from_world[:, :, :3], cam_from_world[:, :, 3])


def center_world(cam_from_world: Float[Array, "3 4"]) -> Float[Array, "3"]:
    """Center of one camera in the world: ``-Rᵀ t``."""
    return -cam_from_world[:, :3].T @ cam_from_world[:, 3]


def rotation_angles_deg(a: Float[Array, "n 3 3"], b: Float[Array, "n 3 3"]) -> Float[Array, "n"]:
    """Angle of the rotation between two, by the chord (exact for tiny angles, where arccos of the trace is not)."""
    chord = np.linalg.norm(a - b, axis=(1, 2)) / (2 * np.sqrt(2))
    return np.degrees(2 * np.arcsin(np.clip(chord, 0.0, 1.0)))


def to_camera(cam_from_world: Float[Array, "3 4"], points_world: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """World points in one camera's frame."""
    return points_world @ cam_from_world[:, :3].T + cam_from_world[:, 3]


def project(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], points_world: Float[Array, "n 3"]
) -> tuple[Float[Array, "n 2"], Float[Array, "n"]]:
    """Pixels [n, 2] and depths [n] of world points; a depth <= 0 lies behind the camera (its pixel means nothing)."""
    cam = to_camera(cam_from_world, points_world)
    depth = cam[:, 2]
    safe = np.where(np.abs(depth) > 1e-12, depth, 1e-12)
    return cam[:, :2] / safe[:, None] * intrinsics[:2] + intrinsics[2:], depth


def is_in_image(
    pixels: Shaped[Array, "n 2"], depth: Shaped[Array, "n"], size: Shaped[Array, "2"] | tuple[int, ...]
) -> Bool[Array, "n"]:
    """Which projected points lie in front of the camera and inside its image of ``size`` (width, height)."""
    return (depth > 0) & np.all((pixels >= 0) & (pixels < np.asarray(size)), axis=1)


def unproject(
    intrinsics: Float[Array, "4"], pixels: Float[Array, "n 2"], depth: Float[Array, "n"]
) -> Float[Array, "n 3"]:
    """Points in the camera's frame at ``depth`` along z through ``pixels``."""
    return (
        np.concatenate([(pixels - intrinsics[2:]) / intrinsics[:2], np.ones((len(pixels), 1))], axis=1) * depth[:, None]
    )


def rays_world(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], pixels: Float[Array, "n 2"]
) -> tuple[Float[Array, "3"], Float[Array, "n 3"]]:
    """Origin [3] and unit directions [n, 3] of the rays through ``pixels``."""
    directions = unproject(intrinsics, pixels, np.ones(len(pixels))) @ cam_from_world[:, :3]
    return center_world(cam_from_world), normalize(directions)


def pixel_grid(width: int, height: int, step: int = 1) -> Float[Array, "n 2"]:
    """Pixel centres [n, 2] of every ``step``-th pixel, row by row."""
    xs, ys = np.meshgrid(np.arange(step // 2, width, step) + 0.5, np.arange(step // 2, height, step) + 0.5)
    return np.stack([xs.ravel(), ys.ravel()], axis=1)


def look_at(
    center: Float[Array, "3"], target: Float[Array, "3"], up: Float[Array, "3"] | None = None
) -> Float[Array, "3 4"]:
    """cam_from_world of a camera at ``center`` that looks at ``target`` with ``up`` (default z) upwards."""
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]) if up is None else up)
    if np.linalg.norm(right) < 1e-9:
        right = np.cross(forward, np.array([0.0, 1.0, 0.0]))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([rotation, -(rotation @ center)[:, None]], axis=1)


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
