"""Base of the synthetic scenes: triangles of known materials, and which of them are scored. Metres, z up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray
Point3 = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Triangles, each of a material (index into the scene's list of materials).

    Those not ``is_in_region`` are backdrop and are not scored.
    """

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    material: Int[Array, "f"]
    is_in_region: Bool[Array, "f"]
    region_low_m: Point3
    region_high_m: Point3
    label: Int[Array, "f"] | None = None  # FLOOR, CEILING, WALL or OTHER of pipeline/imaging/labels.py
    # of the walls' normals, from x to y, in [0, 180); empty where walls have no main directions
    wall_yaws_deg: tuple[float, ...] = ()
