"""People: rounded figures in coloured clothes, in the photos but not in the true surface."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from quoin.tools.synthetic.landmark import landmark_ground_height_m
from quoin.tools.synthetic.materials import SolidNoise
from quoin.tools.synthetic.outdoor_walk import sample_standing_places
from quoin.tools.synthetic.photo_renderer import Solid, build_raycaster, covered_share
from quoin.tools.synthetic.shapes import bumpy_sphere, revolved_profile

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
