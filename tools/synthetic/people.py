"""Passers-by: rounded figures in coloured clothes, in the photos but not in the truth."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from quoin.tools.synthetic.landmark import ground_height_m
from quoin.tools.synthetic.materials import Noise
from quoin.tools.synthetic.outdoor_walk import standing_places
from quoin.tools.synthetic.photo_renderer import Solid, covered, raycaster
from quoin.tools.synthetic.shapes import ball, turned

Array = np.ndarray
WAIST_M, NECK_M = 0.88, 1.48
CROWD_NEAREST_M = 1.2
MOST_PEOPLE = 90
BODY = [(0.0, 0.0), (0.16, 0.02), (0.17, 0.5), (0.2, WAIST_M), (0.18, 1.05), (0.24, 1.38), (0.16, NECK_M), (0.06, 1.6)]


def crowd(spots: Float[Array, "n 2"], noise: Noise, rng: np.random.Generator) -> Solid:
    """People who stand at ``spots``."""
    vertices: list[Array] = []
    faces: list[Array] = []
    colours: list[Array] = []
    for x, y in spots:
        z = float(ground_height_m(np.array(x), np.array(y)))
        tall = rng.uniform(0.92, 1.1)
        figure = turned([(r, h * tall) for r, h in BODY], (x, y, z))
        figure.vertices[:, :2] = (figure.vertices[:, :2] - [x, y]) * [1.0, 0.75] + [x, y]
        shirt, trousers, skin = rng.uniform(0.03, 0.7, 3), rng.uniform(0.02, 0.3, 3), (0.5, 0.33, 0.24)
        height = (figure.triangles_center[:, 2] - z) / tall
        dress = np.where((height < WAIST_M)[:, None], trousers, np.where((height < NECK_M)[:, None], shirt, skin))
        head = ball((x, y, z + 1.66 * tall), 0.125, squash=1.2)
        for mesh, colour in ((figure, dress), (head, np.broadcast_to(skin, (len(head.faces), 3)))):
            faces.append(mesh.faces + sum(len(v) for v in vertices))
            vertices.append(mesh.vertices)
            colours.append(colour)
    tint = np.concatenate(colours).astype(np.float32)

    def paint(points: Array, normals: Array, face: Array) -> Array:
        return tint[face] * (1 + 0.12 * noise.coarse(points))[:, None]

    return Solid(raycaster(np.concatenate(vertices), np.concatenate(faces)), paint)


def crowd_of(
    share: float,
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    noise: Noise,
    seed: Sequence[int],
) -> Solid | None:
    """As many people as cover ``share`` of a photo, or the most that find a place; None where nobody does."""
    spots = standing_places(cam_from_world, MOST_PEOPLE, CROWD_NEAREST_M, np.random.default_rng([*seed, 0]))

    def some(count: int) -> Solid:
        return crowd(spots[:count], noise, np.random.default_rng([*seed, 1]))

    def suffice(count: int) -> bool:
        return covered(some(count), cam_from_world, intrinsics, size) >= share

    if not len(spots) or share <= 0:
        return None
    return some(1 + bisect_left(range(1, len(spots)), True, key=suffice))
