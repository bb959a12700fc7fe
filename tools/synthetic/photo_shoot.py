"""A photo shoot for each kind of scene: its geometry, cameras, passers-by and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import centers_world
from quoin.tools.synthetic import (
    drone_flight,
    facades,
    indoor_light,
    indoor_walk,
    landmark,
    outdoor_light,
    outdoor_walk,
    rooms,
    town,
)
from quoin.tools.synthetic.config import SyntheticConfig
from quoin.tools.synthetic.materials import SolidNoise, landmark_albedo
from quoin.tools.synthetic.people import build_crowd, build_people
from quoin.tools.synthetic.photo_renderer import SAMPLES_PER_AXIS, RadianceFunction, Solid, build_raycaster
from quoin.tools.synthetic.scene import Scene

Array = np.ndarray
PEOPLE_SHARE = 0.35  # of the landmark's photos
CLEAR_HAZE_LENGTH_M = 1500.0  # on a clear day


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
    poses = outdoor_walk.outdoor_walk_cameras(config.n_photos, seed, config.pitch_deg)
    size = (config.width, config.height)
    shuffled = np.random.default_rng([seed, 5]).permutation(config.n_photos)
    photos_with_people = set(shuffled[: round(PEOPLE_SHARE * config.n_photos)].tolist())

    def people_in(index: int, rng: np.random.Generator) -> Solid | None:
        if config.crowd is not None:
            share = config.crowd * rng.uniform(0.5, 1.5)
            return build_crowd(share, poses[index], intrinsics, size, noise, [seed, 6, index])
        spots = outdoor_walk.sample_passers_by(poses[index], rng) if index in photos_with_people else np.zeros((0, 2))
        return build_people(spots, noise, rng) if len(spots) else None

    def radiance_function(people: Solid | None) -> RadianceFunction:
        return partial(outdoor_light.outdoor_radiance, [solid] if people is None else [solid, people], noise)

    return PhotoShoot(made, solid, poses, people_in, radiance_function)


def shoot_room(config: SyntheticConfig, seed: int) -> PhotoShoot:
    """The furnished room in the light of its window, from a walk along its walls, without people."""
    made, noise = rooms.build_room(seed, config.yaw_deg), SolidNoise(seed)
    solid, radiance_function = indoor_light.light_room(made, noise)
    return PhotoShoot(
        made,
        solid,
        indoor_walk.indoor_walk_cameras(made, config.n_photos, seed),
        lambda *_: None,
        lambda _: radiance_function,
    )


def shoot_town(config: SyntheticConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The town in daylight from a drone with GPS, without people."""
    made, noise = town.build_town(config.quarters, seed), SolidNoise(seed)
    solid = Solid(build_raycaster(made.vertices, made.faces), partial(facades.town_albedo, made, noise=noise))
    poses = drone_flight.flight_cameras(made.extent_m, intrinsics, (config.width, config.height), seed)
    radiance_function = partial(outdoor_light.outdoor_radiance, [solid], noise, haze_m=CLEAR_HAZE_LENGTH_M)
    places = drone_flight.geodetic(centers_world(poses), seed)
    return PhotoShoot(made, solid, poses, lambda *_: None, lambda _: radiance_function, places, samples=1)


def shoot_scene(config: SyntheticConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The photo shoot of ``config.scene``."""
    if config.scene == "room":
        return shoot_room(config, seed)
    return (shoot_town if config.scene == "town" else shoot_landmark)(config, intrinsics, seed)
