"""Cameras of the synthetic scenes: a walk around the landmark, one along a room's walls, a drone's five flights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import center_world, look_at
from quoin.tools.synthetic.landmark import landmark_ground_height_m
from quoin.tools.synthetic.rooms import Room
from quoin.tools.synthetic.town import world_from_street

Array = np.ndarray

# -- walk around the landmark ------------------------------------------------------------------------------------------

TEMPLE_HALF_SIZE_M = np.array([4.2, 4.9])  # half the ground plan of the temple, with room to stand beside it


def outdoor_walk_cameras(n_photos: int, seed: int, pitch_deg: float = 0.0) -> Float[Array, "n 3 4"]:
    """cam_from_world of the photos: about 65 % at eye height, 25 % raised to 4.5–9 m, 10 % close to the steps.

    Each group goes once around; distance, height, aim and roll vary as in handheld photos. From 30 photos on,
    neighbours at eye height are near enough (20 degrees) for SIFT to match. ``pitch_deg`` turns every camera up.
    """
    rng = np.random.default_rng([seed, 3])
    n_raised, n_close = round(0.25 * n_photos), round(0.1 * n_photos)
    groups = [("eye", n_photos - n_raised - n_close), ("raised", n_raised), ("close", n_close)]
    poses = []
    for kind, count in groups:
        for i in range(count):
            angle = 2 * np.pi * (i + rng.uniform(-0.15, 0.15)) / count - np.pi / 2
            away, height, aim = {
                "eye": (rng.uniform(10.2, 13.2), 1.6 + rng.uniform(-0.15, 0.2), 3.1),
                "raised": (rng.uniform(9.5, 12.5), rng.uniform(4.5, 9.0), 2.6),
                "close": (rng.uniform(8.2, 9.2), rng.uniform(1.5, 2.2), 2.6),
            }[kind]
            x, y = away * np.cos(angle), away * np.sin(angle)
            sideways = rng.uniform(-1.0, 1.0) * (2.2 if kind == "close" else 1.2)
            target = [-sideways * np.sin(angle), sideways * np.cos(angle), aim + rng.uniform(-0.4, 0.4)]
            center = [x, y, height + float(landmark_ground_height_m(np.array(x), np.array(y)))]
            roll = rng.normal(0, 0.02)
            up = np.array([-np.sin(angle) * roll, np.cos(angle) * roll, 1.0])
            poses.append(look_at(np.array(center), np.array(target), up))
    c, s = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    up_from_level = np.array([[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]])  # camera axes: x right, y down, z ahead
    return (up_from_level @ np.stack(poses))[rng.permutation(n_photos)]


def sample_passers_by(cam_from_world: Float[Array, "3 4"], rng: np.random.Generator) -> Float[Array, "n 2"]:
    """Positions (x, y) of up to 4 people in front of the camera, not on the temple's steps."""
    return sample_standing_places(cam_from_world, 12, 3.0, rng)[: rng.integers(1, 5)]


def sample_standing_places(
    cam_from_world: Float[Array, "3 4"], n: int, nearest_m: float, rng: np.random.Generator
) -> Float[Array, "k 2"]:
    """Up to ``n`` positions (x, y) from ``nearest_m`` to 8 m in front of the camera, none on the temple's steps."""
    center = center_world(cam_from_world)
    forward = cam_from_world[2, :2] / np.linalg.norm(cam_from_world[2, :2])
    ahead, aside = rng.uniform(nearest_m, 8.0, n), rng.uniform(-0.4, 0.4, n)
    right = np.array([forward[1], -forward[0]])
    spots = center[:2] + ahead[:, None] * (forward + aside[:, None] * right)
    return spots[np.any(np.abs(spots) > TEMPLE_HALF_SIZE_M, axis=1)]


# -- walk along a room's walls -----------------------------------------------------------------------------------------

EYE_HEIGHT_RANGE_M = (1.3, 1.7)


def indoor_walk_cameras(room: Room, n_photos: int, seed: int) -> Float[Array, "n 3 4"]:
    """cam_from_world of the photos, in the order of one walk around ``room.path``.

    Each looks across the middle of the walk to the other side, alternately more to the left or to the right and a
    little down; position, height, pitch and roll vary as in handheld photos. With 40 photos, neighbours stand about
    30 cm apart.
    """
    rng = np.random.default_rng([seed, 3])
    closed = np.concatenate([room.path, room.path[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    middle = np.stack([np.interp(np.linspace(0, along[-1], 200), along, closed[:, k]) for k in (0, 1)], 1).mean(axis=0)
    poses = []
    for index in range(n_photos):
        at = (index + rng.uniform(-0.2, 0.2)) / n_photos % 1.0
        place = np.array([np.interp(at * along[-1], along, closed[:, k]) for k in (0, 1)]) + rng.normal(0, 0.03, 2)
        ahead = middle - place
        yaw = np.arctan2(ahead[1], ahead[0]) + np.radians(22 * np.sin(2 * np.pi * 5 * at) + rng.normal(0, 4))
        pitch, roll = np.radians(rng.normal(-5, 4)), np.radians(rng.normal(0, 1.5))
        forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        aside = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        center = np.array([*place, rng.uniform(*EYE_HEIGHT_RANGE_M)])
        poses.append(look_at(center, center + forward, np.array([0.0, 0, 1]) + np.tan(roll) * aside))
    return np.stack(poses)


# -- drone over the town -----------------------------------------------------------------------------------------------

FLIGHT_HEIGHT_M = 60.0  # of the drone above the middle of the ground
OBLIQUE_TILT_DEG = 30.0  # of the oblique flights, from straight down
OBLIQUE_HEADINGS_RAD = (0.0, np.pi / 2, np.pi, -np.pi / 2)  # where they look: east, north, west, south
FORWARD_OVERLAP, SIDE_OVERLAP = 0.76, 0.66  # of neighbouring nadir photos, along and across the flight lines
OBLIQUE_OVERLAP = 0.6  # of neighbouring oblique photos, both along and across
AIM_INSET_M = 10.0  # photos aim this far inside the outermost streets, not at the lake around
GPS_SIGMA_M = 0.4  # of a position in EXIF, per axis
ORIGIN_GEODETIC = (48.2, 8.1, 410.0)  # latitude, longitude, altitude of the world's origin
_WGS84_A, _WGS84_E2 = 6378137.0, 0.00669437999014


def flight_cameras(
    extent_m: tuple[float, float], intrinsics: Float[Array, "4"], size: tuple[int, int], seed: int
) -> Float[Array, "n 3 4"]:
    """cam_from_world of all photos, flight after flight, line after line, every other line backwards.

    Photos of every flight aim at a grid of places over the town, and oblique flights stand off from it, so that a
    quarter has as many photos in a town of any size. The drone sways by half a metre and a degree.
    """
    rng = np.random.default_rng([seed, 3])
    footprint_m = FLIGHT_HEIGHT_M * size[0] / intrinsics[0], FLIGHT_HEIGHT_M * size[1] / intrinsics[1]
    poses = []
    for heading in (None, *OBLIQUE_HEADINGS_RAD):
        for s, t in _aim_points(extent_m, footprint_m, heading):
            poses.append(_pose(s, t, heading, rng))
    return np.stack(poses)


def _aim_points(
    extent_m: tuple[float, float], footprint_m: tuple[float, float], heading: float | None
) -> Iterator[tuple[float, float]]:
    """Street coordinates that the photos of one flight aim at, in the order they are taken.

    Lines run along y, and photos stand upright on them; on flights to the east and the west lines run along x.
    ``footprint_m``: width and height of the ground that a photo taken straight down shows.
    """
    is_along_x = heading is not None and abs(np.sin(heading)) < 0.5
    forward_overlap, side_overlap = (
        (FORWARD_OVERLAP, SIDE_OVERLAP) if heading is None else (OBLIQUE_OVERLAP, OBLIQUE_OVERLAP)
    )
    forward_m, side_m = footprint_m[1] * (1 - forward_overlap), footprint_m[0] * (1 - side_overlap)
    s = _grid_positions(extent_m[0], forward_m if is_along_x else side_m)
    t = _grid_positions(extent_m[1], side_m if is_along_x else forward_m)
    across, along = (t, s) if is_along_x else (s, t)
    for number, line in enumerate(across):
        for place in along[:: -1 if number % 2 else 1]:
            yield (place, line) if is_along_x else (line, place)


def _grid_positions(extent: float, step: float) -> Float[Array, "n"]:
    """Coordinates at most ``step`` apart, from AIM_INSET_M inside one edge of the town to the other."""
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
    """Latitude, longitude (degrees) and altitude (metres) of the drone's GPS at its positions, with GPS noise.

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
