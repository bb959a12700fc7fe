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
from quoin.tools.synthetic.materials import Noise, albedo
from quoin.tools.synthetic.people import crowd, crowd_of
from quoin.tools.synthetic.photo_renderer import SAMPLES, Sight, Solid, raycaster
from quoin.tools.synthetic.scene import Scene

Array = np.ndarray
PEOPLE_SHARE = 0.35  # of the landmark's photos
CLEAR_M = 1500.0  # haze on a day for flying


@dataclass(frozen=True)
class Shoot:
    """``passing``: who is in photo ``index`` (its generator decides); ``sight``: what is seen with them or without."""

    scene: Scene
    solid: Solid
    cam_from_world: Float[Array, "n 3 4"]
    passing: Callable[[int, np.random.Generator], Solid | None]
    sight: Callable[[Solid | None], Sight]
    geodetic: Float[Array, "n 3"] | None = None  # latitude, longitude, altitude that the camera notes, if it does
    samples: int = SAMPLES  # rays per pixel and axis


def of_landmark(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> Shoot:
    """The landmark in daylight from a walk around it; people in a third of the photos, or as many as asked for."""
    made, noise = landmark.build(seed), Noise(seed)

    def paint(points: Array, normals: Array, face: Array) -> Array:
        return albedo(points, normals, made.material[face], noise, plain=config.plain)

    solid = Solid(raycaster(made.vertices, made.faces), paint)
    poses = outdoor_walk.cameras(config.n_photos, seed, config.look_up_deg)
    size = (config.width, config.height)
    shuffled = np.random.default_rng([seed, 5]).permutation(config.n_photos)
    peopled = set(shuffled[: round(PEOPLE_SHARE * config.n_photos)].tolist())

    def passing(index: int, rng: np.random.Generator) -> Solid | None:
        if config.crowd is not None:
            share = config.crowd * rng.uniform(0.5, 1.5)
            return crowd_of(share, poses[index], intrinsics, size, noise, [seed, 6, index])
        spots = outdoor_walk.passers_by(poses[index], rng) if index in peopled else np.zeros((0, 2))
        return crowd(spots, noise, rng) if len(spots) else None

    def sight(people: Solid | None) -> Sight:
        return partial(outdoor_light.radiance, [solid] if people is None else [solid, people], noise)

    return Shoot(made, solid, poses, passing, sight)


def of_room(config: DemoConfig, seed: int) -> Shoot:
    """The furnished room by the light of its window, from a walk along its walls; nobody passes by."""
    made, noise = rooms.build(seed, config.turn_deg), Noise(seed)
    solid, sight = indoor_light.view(made, noise)
    return Shoot(made, solid, indoor_walk.cameras(made, config.n_photos, seed), lambda *_: None, lambda _: sight)


def of_town(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> Shoot:
    """The town in daylight from a drone that notes where it is; its streets are empty."""
    made, noise = town.build(config.quarters, seed), Noise(seed)
    solid = Solid(raycaster(made.vertices, made.faces), partial(facades.colours, made, noise=noise))
    poses = drone_flight.cameras(made.extent_m, intrinsics, (config.width, config.height), seed)
    sight = partial(outdoor_light.radiance, [solid], noise, haze_m=CLEAR_M)
    places = drone_flight.geodetic(centers_world(poses), seed)
    return Shoot(made, solid, poses, lambda *_: None, lambda _: sight, places, samples=1)


def of(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> Shoot:
    """The scene that is asked for."""
    if config.scene == "room":
        return of_room(config, seed)
    return (of_town if config.scene == "town" else of_landmark)(config, intrinsics, seed)
