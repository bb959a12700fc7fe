"""Unit vectors, and where rays cross axis-aligned boxes (numpy)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Array = np.ndarray

MIN_DIRECTION_COMPONENT = 1e-9  # a smaller component of a direction counts as this: the slab test divides by it


def normalize(vectors: Float[Array, "*n d"], eps: float = 1e-12) -> Float[Array, "*n d"]:
    """Unit vectors along the last axis; a vector shorter than ``eps`` is divided by ``eps``, so zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), eps)


def intersect_ray_box(
    origins: Float[Array, "*n 3"], directions: Float[Array, "n 3"], low: Float[Array, "3"], high: Float[Array, "3"]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Ray parameters (near, far) at which rays enter and leave a box (slab method, Kay & Kajiya 1986).

    0 <= near <= far; a ray misses the box where far = near. The float32 twin in torch, for the renderer, is
    ``fields.sampler.box.intersect_ray_box``.
    """
    tiny = np.abs(directions) < MIN_DIRECTION_COMPONENT
    safe = np.where(tiny, MIN_DIRECTION_COMPONENT, directions)
    a, b = (low - origins) / safe, (high - origins) / safe
    near = np.maximum(np.minimum(a, b).max(axis=1), 0.0)
    return near, np.maximum(np.maximum(a, b).min(axis=1), near)
