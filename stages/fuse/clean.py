"""What of a raw surface is kept: faces that enough photos see, and pieces that are large enough to be something."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from stages.fuse.mesh import Mesh, components

Array = np.ndarray


def enough_views(faces: Int[Array, "f 3"], views: Int[Array, "v"], min_views: int) -> Bool[Array, "f"]:
    """Faces with a vertex that at least ``min_views`` photos see (so a kept region ends just beyond what was seen)."""
    return views[faces].max(axis=1, initial=0) >= min_views


def large_pieces(mesh: Mesh, min_diameter: float) -> Bool[Array, "f"]:
    """Faces of connected pieces whose bounding box has a diagonal of ``min_diameter`` or more; the largest always."""
    count, piece = components(mesh.faces, len(mesh.vertices_world))
    if count == 0:
        return np.zeros(0, bool)
    corners = mesh.vertices_world[mesh.faces]
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, piece, corners.min(axis=1))
    np.maximum.at(high, piece, corners.max(axis=1))
    diameter = np.linalg.norm(high - low, axis=1)
    return diameter[piece] >= min(min_diameter, diameter.max())
