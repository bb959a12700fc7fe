"""Normals of the points of a depth map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Array = np.ndarray

MAX_BEND_RATIO = 0.05  # of the distance: second difference of neighboring points on one surface


def depth_normals(points: Float[Array, "h w 3"], is_valid: Array) -> tuple[Float[Array, "h w 3"], Array]:
    """Unit normals by central differences, towards the camera at the origin, and which pixels have one.

    A pixel has a normal if its four neighbors are valid, and bend from a straight line by less than MAX_BEND_RATIO of
    its distance.
    """
    out = np.zeros_like(points)
    right, left = points[1:-1, 2:], points[1:-1, :-2]
    below, above = points[2:, 1:-1], points[:-2, 1:-1]
    middle = points[1:-1, 1:-1]
    normal = np.cross(right - left, below - above)
    length = np.linalg.norm(normal, axis=-1)
    has_normal = (
        is_valid[1:-1, 1:-1]
        & is_valid[1:-1, 2:]
        & is_valid[1:-1, :-2]
        & is_valid[2:, 1:-1]
        & is_valid[:-2, 1:-1]
        & (length > 0)
    )
    bend = np.maximum(
        np.linalg.norm(right + left - 2 * middle, axis=-1), np.linalg.norm(below + above - 2 * middle, axis=-1)
    )
    has_normal &= bend < MAX_BEND_RATIO * np.linalg.norm(middle, axis=-1)
    normal = normal / np.maximum(length, 1e-12)[..., None]
    normal *= -np.sign((normal * middle).sum(axis=-1, keepdims=True))
    out[1:-1, 1:-1] = normal
    inside = np.zeros(is_valid.shape, bool)
    inside[1:-1, 1:-1] = has_normal
    return out, inside
