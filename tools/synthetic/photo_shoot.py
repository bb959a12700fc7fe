"""What a generated collection is made of: a scene, cameras before or in it, what passes by, and how it is lit."""

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
from quoin.tools.synthetic.config import DemoConfig
from quoin.tools.synthetic.materials import SolidNoise, landmark_albedo
from quoin.tools.synthetic.people import build_crowd, build_people
from quoin.tools.synthetic.photo_renderer import SAMPLES_PER_AXIS, RadianceFunction, Solid, build_raycaster
from quoin.tools.synthetic.scene import Scene

Array = np.ndarray
PEOPLE_SHARE = 0.35  # of the landmark's photos
CLEAR_HAZE_LENGTH_M = 1500.0  # haze on a day for flying


@dataclass(frozen=True)
class PhotoShoot:
    """``people_in``: who is in photo ``index`` (its generator decides); ``radiance_function``: what is seen with them
    or without."""

    scene: Scene
    solid: Solid
    cam_from_world: Float[Array, "n 3 4"]
    people_in: Callable[[int, np.random.Generator], Solid | None]
    radiance_function: Callable[[Solid | None], RadianceFunction]
    geodetic: Float[Array, "n 3"] | None = None  # latitude, longitude, altitude that the camera notes, if it does
    samples: int = SAMPLES_PER_AXIS  # rays per pixel and axis


def shoot_landmark(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The landmark in daylight from a walk around it; people in a third of the photos, or as many as asked for."""
    made, noise = landmark.build_landmark(seed), SolidNoise(seed)

    def reflectance(points: Array, normals: Array, face: Array) -> Array:
        return landmark_albedo(points, normals, made.material[face], noise, plain=config.plain)

    solid = Solid(build_raycaster(made.vertices, made.faces), reflectance)
    poses = outdoor_walk.outdoor_walk_cameras(config.n_photos, seed, config.look_up_deg)
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


def shoot_room(config: DemoConfig, seed: int) -> PhotoShoot:
    """The furnished room by the light of its window, from a walk along its walls; nobody passes by."""
    made, noise = rooms.build_room(seed, config.turn_deg), SolidNoise(seed)
    solid, radiance_function = indoor_light.light_room(made, noise)
    return PhotoShoot(
        made,
        solid,
        indoor_walk.indoor_walk_cameras(made, config.n_photos, seed),
        lambda *_: None,
        lambda _: radiance_function,
    )


def shoot_town(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The town in daylight from a drone that notes where it is; its streets are empty."""
    made, noise = town.build_town(config.quarters, seed), SolidNoise(seed)
    solid = Solid(build_raycaster(made.vertices, made.faces), partial(facades.town_albedo, made, noise=noise))
    poses = drone_flight.flight_cameras(made.extent_m, intrinsics, (config.width, config.height), seed)
    radiance_function = partial(outdoor_light.outdoor_radiance, [solid], noise, haze_m=CLEAR_HAZE_LENGTH_M)
    places = drone_flight.geodetic(centers_world(poses), seed)
    return PhotoShoot(made, solid, poses, lambda *_: None, lambda _: radiance_function, places, samples=1)


def shoot_scene(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> PhotoShoot:
    """The scene that is asked for."""
    if config.scene == "room":
        return shoot_room(config, seed)
    return (shoot_town if config.scene == "town" else shoot_landmark)(config, intrinsics, seed)
