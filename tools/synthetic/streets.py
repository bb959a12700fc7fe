"""Streets of the town: a gently bent grid of quarters on gentle hills, with a lake around it. Metres, z up.

Street coordinates (s, t) are those of the straight grid, whose lines lie at multiples of QUARTER_SIZE_M; the world is
bent: x = s + bend(t), y = t + bend(s), which turns a house with its street.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray

QUARTER_SIZE_M = 38.0  # from one street to the next
ROAD_HALF_WIDTH_M, PAVEMENT_EDGE_M = 2.6, 3.7  # from the middle of a street to the kerb, and to the gardens
QUAY_EDGE_M = 4.4  # from the middle of the outermost street to the water
BEND_AMPLITUDE_M, BEND_PERIOD_M = 0.9, 47.0
LAKE_HEIGHT_M = -2.0  # height of the water
LAKE_WIDTH_M = 160.0  # how far the water goes


def grid_shape(size: int) -> tuple[int, int]:
    """Quarters along s and t of a town of ``size`` quarters: the two factors nearest to each other."""
    along = max(n for n in range(1, int(np.sqrt(size)) + 1) if size % n == 0)
    return size // along, along


def is_square(column: Int[Array, "*n"], row: Int[Array, "*n"]) -> Bool[Array, "*n"]:
    """Whether a quarter is a square with a church: one of sixteen."""
    return np.asarray((column % 4 == 1) & (row % 4 == 1))


def street_bend(along: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Sideways offset of a street from its straight line, in metres."""
    return np.asarray(BEND_AMPLITUDE_M * np.sin(2 * np.pi * along / BEND_PERIOD_M + 0.7))


def world_from_street(s: Float[Array, "*n"], t: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """World x, y of street coordinates."""
    return np.asarray(s + street_bend(t)), np.asarray(t + street_bend(s))


def street_from_world(x: Float[Array, "*n"], y: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Street coordinates of world x, y (a fixed point: bends are slight, an iteration gains a factor of 70)."""
    s, t = x, y
    for _ in range(3):
        s = x - street_bend(t)
        t = y - street_bend(s)
    return np.asarray(s), np.asarray(t)


def street_yaw(s: float, t: float) -> float:
    """Direction of the s axis at a place, radians from x to y."""
    rate = 2 * np.pi / BEND_PERIOD_M
    return float(np.arctan(BEND_AMPLITUDE_M * rate * np.cos(rate * s + 0.7)))


def town_ground_height_m(x: Float[Array, "*n"], y: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Height of the ground: swells of a metre over 70 m."""
    return np.asarray(0.7 * np.sin(x / 23.0 + 0.4) * np.sin(y / 19.0) + 0.35 * np.sin(x / 11.0 - y / 13.0))
