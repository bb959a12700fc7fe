"""Pinhole cameras in numpy. Pixel (0, 0) is the corner of the first pixel; its centre is at (0.5, 0.5), as in COLMAP.

Camera axes: x right, y down, z forward. ``intrinsics`` = [fx, fy, cx, cy] in pixels of the undistorted photo.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

from quoin.pipeline.geometry.rays import normalize

Array = np.ndarray


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
