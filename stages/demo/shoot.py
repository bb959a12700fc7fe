"""What a generated collection is made of: a scene, cameras before or in it, what passes by, and how it is lit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from stages.demo import daylight, indoors, landmark, room, stroll, walk
from stages.demo.config import DemoConfig
from stages.demo.materials import Noise, albedo
from stages.demo.people import crowd, crowd_of
from stages.demo.render import Sight, Solid, raycaster
from stages.demo.scene import Scene

Array = np.ndarray
PEOPLE_SHARE = 0.35  # of the landmark's photos


@dataclass(frozen=True)
class Shoot:
    """``passing``: who is in photo ``index`` (its generator decides); ``sight``: what is seen with them or without."""

    scene: Scene
    solid: Solid
    cam_from_world: Float[Array, "n 3 4"]
    passing: Callable[[int, np.random.Generator], Solid | None]
    sight: Callable[[Solid | None], Sight]


def of_landmark(config: DemoConfig, intrinsics: Float[Array, "4"], seed: int) -> Shoot:
    """The landmark in daylight from a walk around it; people in a third of the photos, or as many as asked for."""
    made, noise = landmark.build(seed), Noise(seed)

    def paint(points: Array, normals: Array, face: Array) -> Array:
        return albedo(points, normals, made.material[face], noise, plain=config.plain)

    solid = Solid(raycaster(made.vertices, made.faces), paint)
    poses = walk.cameras(config.n_photos, seed, config.look_up_deg)
    size = (config.width, config.height)
    shuffled = np.random.default_rng([seed, 5]).permutation(config.n_photos)
    peopled = set(shuffled[: round(PEOPLE_SHARE * config.n_photos)].tolist())

    def passing(index: int, rng: np.random.Generator) -> Solid | None:
        if config.crowd is not None:
            share = config.crowd * rng.uniform(0.5, 1.5)
            return crowd_of(share, poses[index], intrinsics, size, noise, [seed, 6, index])
        spots = walk.passers_by(poses[index], rng) if index in peopled else np.zeros((0, 2))
        return crowd(spots, noise, rng) if len(spots) else None

    def sight(people: Solid | None) -> Sight:
        return partial(daylight.radiance, [solid] if people is None else [solid, people], noise)

    return Shoot(made, solid, poses, passing, sight)


def of_room(config: DemoConfig, seed: int) -> Shoot:
    """The furnished room by the light of its window, from a walk along its walls; nobody passes by."""
    made, noise = room.build(seed, config.turn_deg), Noise(seed)
    solid, sight = indoors.view(made, noise)
    return Shoot(made, solid, stroll.cameras(made, config.n_photos, seed), lambda *_: None, lambda _: sight)
