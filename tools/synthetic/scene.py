"""What the demo photographs: triangles of known materials, and which of them are judged. Metres, z up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Triangles, each of a material (index into its scene's MATERIALS); ``is_in_region`` the region, or else
    backdrop."""

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    material: Int[Array, "f"]
    is_in_region: Bool[Array, "f"]
    region_low_m: Point
    region_high_m: Point
    label: Int[Array, "f"] | None = None  # FLOOR, CEILING, WALL or OTHER of pipeline/labels.py, where it is known
    wall_yaws_deg: tuple[
        float, ...
    ] = ()  # of the walls' normals, from x to y, in [0, 180); empty: they have no direction
