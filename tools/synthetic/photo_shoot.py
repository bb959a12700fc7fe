"""A photo shoot for each kind of scene: its geometry, cameras, light, and people, who are not in the true surface."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import centers_world
from quoin.tools.synthetic import facades, landmark, lighting, rooms, town, trajectories
from quoin.tools.synthetic.config import SyntheticConfig
from quoin.tools.synthetic.landmark import landmark_ground_height_m
from quoin.tools.synthetic.materials import SolidNoise, landmark_albedo
from quoin.tools.synthetic.photo_renderer import (
    SAMPLES_PER_AXIS,
    RadianceFunction,
    Solid,
    build_raycaster,
    covered_share,
)
from quoin.tools.synthetic.shapes import Scene, bumpy_sphere, revolved_profile
from quoin.tools.synthetic.trajectories import sample_standing_places

Array = np.ndarray

WAIST_M, NECK_M = 0.88, 1.48
MIN_CROWD_DISTANCE_M = 1.2
MAX_PEOPLE = 90
BODY_PROFILE = [
    (0.0, 0.0),
    (0.16, 0.02),
    (0.17, 0.5),
    (0.2, WAIST_M),
    (0.18, 1.05),
    (0.24, 1.38),
    (0.16, NECK_M),
    (0.06, 1.6),
]

PEOPLE_SHARE = 0.35  # of the landmark's photos
CLEAR_HAZE_LENGTH_M = 1500.0  # on a clear day


def build_people(spots: Float[Array, "n 2"], noise: SolidNoise, rng: np.random.Generator) -> Solid:
    """A solid of people who stand at ``spots``."""
    vertices: list[Array] = []
    faces: list[Array] = []
    colours: list[Array] = []
    for x, y in spots:
        z = float(landmark_ground_height_m(np.array(x), np.array(y)))
        tall = rng.uniform(0.92, 1.1)
        figure = revolved_profile([(r, h * tall) for r, h in BODY_PROFILE], (x, y, z))
        figure.vertices[:, :2] = (figure.vertices[:, :2] - [x, y]) * [1.0, 0.75] + [x, y]
        shirt, trousers, skin = rng.uniform(0.03, 0.7, 3), rng.uniform(0.02, 0.3, 3), (0.5, 0.33, 0.24)
        height = (figure.triangles_center[:, 2] - z) / tall
        dress = np.where((height < WAIST_M)[:, None], trousers, np.where((height < NECK_M)[:, None], shirt, skin))
        head = bumpy_sphere((x, y, z + 1.66 * tall), 0.125, squash=1.2)
        for mesh, colour in ((figure, dress), (head, np.broadcast_to(skin, (len(head.faces), 3)))):
            faces.append(mesh.faces + sum(len(v) for v in vertices))
            vertices.append(mesh.vertices)
            colours.append(colour)
    tint = np.concatenate(colours).astype(np.float32)

    def reflectance(points: Array, normals: Array, face: Array) -> Array:
        return tint[face] * (1 + 0.12 * noise.coarse(points))[:, None]

    return Solid(build_raycaster(np.concatenate(vertices), np.concatenate(faces)), reflectance)


def build_crowd(
    share: float,
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    noise: SolidNoise,
    seed: Sequence[int],
) -> Solid | None:
    """As many people as cover ``share`` of a photo, or all that have room; None where nobody has."""
    spots = sample_standing_places(cam_from_world, MAX_PEOPLE, MIN_CROWD_DISTANCE_M, np.random.default_rng([*seed, 0]))

    def first_people(count: int) -> Solid:
        return build_people(spots[:count], noise, np.random.default_rng([*seed, 1]))

    def is_covered(count: int) -> bool:
        return covered_share(first_people(count), cam_from_world, intrinsics, size) >= share

    if not len(spots) or share <= 0:
        return None
    return first_people(1 + bisect_left(range(1, len(spots)), True, key=is_covered))


# -- photo shoots ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhotoShoot:
    """All that photos of a scene are rendered from.

    ``people_in`` returns the people in photo ``index``, drawn with its generator; ``radiance_function`` the light that
    rays see, with such people or without.
    """

    scene: Scene
    solid: Solid
    cam_from_world: Float[Array, "n 3 4"]
    people_in: Callable[[int, np.random.Generator], Solid | None]
    radiance_function: Callable[[Solid | None], RadianceFunction]
    geodetic: Float[Array, "n 3"] | None = None  # latitude, longitude, altitude, of cameras with GPS
    samples: int = SAMPLES_PER_AXIS  # rays per pixel and axis


def shoot_landmark(config: SyntheticConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The landmark in daylight from a walk around it, with people in a third of the photos or a crowd in all."""
    made, noise = landmark.build_landmark(seed), SolidNoise(seed)

    def reflectance(points: Array, normals: Array, face: Array) -> Array:
        return landmark_albedo(points, normals, made.material[face], noise, textureless_walls=config.textureless_walls)

    solid = Solid(build_raycaster(made.vertices, made.faces), reflectance)
    poses = trajectories.outdoor_walk_cameras(config.n_photos, seed, config.pitch_deg)
    size = (config.width, config.height)
    shuffled = np.random.default_rng([seed, 5]).permutation(config.n_photos)
    photos_with_people = set(shuffled[: round(PEOPLE_SHARE * config.n_photos)].tolist())

    def people_in(index: int, rng: np.random.Generator) -> Solid | None:
        if config.crowd is not None:
            share = config.crowd * rng.uniform(0.5, 1.5)
            return build_crowd(share, poses[index], intrinsics, size, noise, [seed, 6, index])
        spots = trajectories.sample_passers_by(poses[index], rng) if index in photos_with_people else np.zeros((0, 2))
        return build_people(spots, noise, rng) if len(spots) else None

    def radiance_function(people: Solid | None) -> RadianceFunction:
        return partial(lighting.outdoor_radiance, [solid] if people is None else [solid, people], noise)

    return PhotoShoot(made, solid, poses, people_in, radiance_function)


def shoot_room(config: SyntheticConfig, seed: int) -> PhotoShoot:
    """The furnished room in the light of its window, from a walk along its walls, without people."""
    made, noise = rooms.build_room(seed, config.yaw_deg), SolidNoise(seed)
    solid, radiance_function = lighting.light_room(made, noise)
    return PhotoShoot(
        made,
        solid,
        trajectories.indoor_walk_cameras(made, config.n_photos, seed),
        lambda *_: None,
        lambda _: radiance_function,
    )


def shoot_town(config: SyntheticConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The town in daylight from a drone with GPS, without people."""
    made, noise = town.build_town(config.quarters, seed), SolidNoise(seed)
    solid = Solid(build_raycaster(made.vertices, made.faces), partial(facades.town_albedo, made, noise=noise))
    poses = trajectories.flight_cameras(made.extent_m, intrinsics, (config.width, config.height), seed)
    radiance_function = partial(lighting.outdoor_radiance, [solid], noise, haze_m=CLEAR_HAZE_LENGTH_M)
    places = trajectories.geodetic(centers_world(poses), seed)
    return PhotoShoot(made, solid, poses, lambda *_: None, lambda _: radiance_function, places, samples=1)


def shoot_scene(config: SyntheticConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The photo shoot of ``config.scene``."""
    if config.scene == "room":
        return shoot_room(config, seed)
    return (shoot_town if config.scene == "town" else shoot_landmark)(config, intrinsics, seed)
