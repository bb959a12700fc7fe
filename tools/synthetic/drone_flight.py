"""How the town is photographed: five flights of a drone, one looking straight down, four aslant from the four sides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import look_at
from quoin.tools.synthetic.streets import world_from_street

Array = np.ndarray
FLIGHT_HEIGHT_M = 60.0  # of the drone above the middle of the ground
OBLIQUE_TILT_DEG = 30.0  # of the slanted flights, from straight down
FORWARD_OVERLAP, SIDE_OVERLAP, OBLIQUE_OVERLAP = (
    0.76,
    0.66,
    0.6,
)  # overlap along and across the lines of the upright flight; of the others both
AIM_INSET_M = 10.0  # photos aim so far inside the outermost streets: a lake is nothing to look at
GPS_SIGMA_M = 0.4  # of a position in EXIF, per axis
ORIGIN_GEODETIC = (48.2, 8.1, 410.0)  # latitude, longitude, altitude of the world's origin
_WGS84_A, _WGS84_E2 = 6378137.0, 0.00669437999014


def flight_cameras(
    extent_m: tuple[float, float], intrinsics: Float[Array, "4"], size: tuple[int, int], seed: int
) -> Float[Array, "n 3 4"]:
    """cam_from_world of all photos, flight after flight, line after line, every other line backwards.

    Photos aim at a grid of places over the town, whatever flight they are of, so that there are as many of a quarter
    in a town of any size; a slanted flight stands off. The drone sways by half a metre and a degree.
    """
    rng = np.random.default_rng([seed, 3])
    footprint_width, footprint_height = (
        FLIGHT_HEIGHT_M * side / focal for side, focal in zip(size, intrinsics[:2], strict=True)
    )  # footprint
    poses = []
    for heading in (None, 0.0, np.pi / 2, np.pi, -np.pi / 2):
        overlaps = (FORWARD_OVERLAP, SIDE_OVERLAP) if heading is None else (OBLIQUE_OVERLAP, OBLIQUE_OVERLAP)
        forward, side = footprint_height * (1 - overlaps[0]), footprint_width * (1 - overlaps[1])
        # lines run along y and pictures are upright on them; flights to the east and west have lines along x
        turned = heading is not None and abs(np.sin(heading)) < 0.5
        steps = (forward, side) if turned else (side, forward)
        ss, ts = (_grid_positions(e, step) for e, step in zip(extent_m, steps, strict=True))
        lines = [[(s, t) for s in ss] for t in ts] if turned else [[(s, t) for t in ts] for s in ss]
        for number, line in enumerate(lines):
            for s, t in line[:: -1 if number % 2 else 1]:
                poses.append(_pose(s, t, heading, rng))
    return np.stack(poses)


def _grid_positions(extent: float, step: float) -> Float[Array, "n"]:
    """Places at most ``step`` apart, from AIM_INSET_M inside one edge of the town to the other."""
    low, high = AIM_INSET_M, extent - AIM_INSET_M
    return np.linspace(low, high, max(2, int(np.ceil((high - low) / step)) + 1))


def _pose(s: float, t: float, heading: float | None, rng: np.random.Generator) -> Float[Array, "3 4"]:
    x, y = (float(v) for v in world_from_street(np.array(s), np.array(t)))
    sway, turn = rng.normal(0, 0.4, 3), np.radians(rng.normal(0, 1.0, 3))
    ahead = np.array([0.0, 1.0]) if heading is None else np.array([np.cos(heading), np.sin(heading)])
    tilt = np.radians(OBLIQUE_TILT_DEG if heading is not None else 0.0) + turn[0]
    away = FLIGHT_HEIGHT_M * np.tan(tilt)
    center = np.array([x, y, FLIGHT_HEIGHT_M]) - np.array([*(away * ahead), 0.0]) + sway
    aim = (
        np.array([x, y, 0.0])
        + np.array([*sway[:2], 0.0])
        + FLIGHT_HEIGHT_M * turn[1] * np.array([ahead[1], -ahead[0], 0.0])
    )
    c, d = np.cos(turn[2]), np.sin(turn[2])
    up = np.array([c * ahead[0] - d * ahead[1], d * ahead[0] + c * ahead[1], 0.0])
    return look_at(center, aim, up)


def geodetic(centers_world: Float[Array, "n 3"], seed: int) -> Float[Array, "n 3"]:
    """Latitude, longitude (degrees) and altitude (metres) that the drone notes of its places, with their noise.

    World is metres east, north, up of ORIGIN_GEODETIC; on the ellipsoid's radii there, good to a centimetre over 500 m.
    """
    noisy_centers = centers_world + np.random.default_rng([seed, 8]).normal(0, GPS_SIGMA_M, centers_world.shape)
    latitude = np.radians(ORIGIN_GEODETIC[0])
    w = np.sqrt(1 - _WGS84_E2 * np.sin(latitude) ** 2)
    meridian, normal = _WGS84_A * (1 - _WGS84_E2) / w**3, _WGS84_A / w
    degrees_per_meter = np.array([1 / meridian, 1 / (normal * np.cos(latitude))])
    return np.column_stack(
        [
            ORIGIN_GEODETIC[:2] + np.degrees(noisy_centers[:, [1, 0]] * degrees_per_meter),
            ORIGIN_GEODETIC[2] + noisy_centers[:, 2],
        ]
    )
