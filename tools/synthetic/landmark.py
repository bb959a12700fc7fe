"""The landmark: a small temple with steps, fluted columns, niches and a tiled roof, in a garden. Metres, z up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import trimesh
from jaxtyping import Float

from quoin.tools.synthetic import shapes
from quoin.tools.synthetic.shapes import (
    Scene,
    bumpy_sphere,
    grid_box,
    niche,
    panel_matrix,
    relief_panel,
    revolved_profile,
    subdivided,
)

Array = np.ndarray
REGION_LOW_M = (-6.5, -5.8, -0.3)
REGION_HIGH_M = (6.5, 5.8, 7.5)
HORIZON_DISTANCE_M = 130.0
LANDMARK_MATERIALS = ["marble", "ashlar", "tiles", "bronze", "leaves", "bark", "ground", "brick", "plaster"]

# Turned profiles: (radius, height) in metres from bottom to top.
# fmt: off
COLUMN = [(0.42, 0.0), (0.42, 0.1), (0.36, 0.12), (0.4, 0.17), (0.36, 0.22), (0.31, 0.25)]
SHAFT = [(0.31, 0.25), (0.31, 1.2), (0.3, 2.0), (0.275, 2.8), (0.26, 3.1)]
CAPITAL = [(0.26, 3.1), (0.3, 3.14), (0.28, 3.18), (0.33, 3.26), (0.42, 3.34), (0.42, 3.36)]
URN = [(0.0, 0.0), (0.22, 0.0), (0.22, 0.06), (0.08, 0.14), (0.1, 0.2), (0.3, 0.42), (0.33, 0.6), (0.24, 0.74),
       (0.2, 0.8), (0.3, 0.9), (0.3, 0.94), (0.0, 0.9)]
BASIN = [(1.2, 0.0), (1.2, 0.08), (1.08, 0.14), (1.05, 0.42), (1.2, 0.5), (1.2, 0.6), (1.0, 0.6), (0.95, 0.3),
         (0.0, 0.28)]
STEM = [(0.4, 0.28), (0.4, 0.36), (0.16, 0.5), (0.14, 0.9), (0.24, 1.0), (0.62, 1.24), (0.66, 1.32), (0.58, 1.32),
        (0.2, 1.18), (0.09, 1.2), (0.08, 1.5), (0.14, 1.56), (0.0, 1.72)]
ROBE = [(0.36, 0.0), (0.38, 0.1), (0.3, 0.5), (0.24, 0.9), (0.27, 1.15), (0.3, 1.35), (0.22, 1.52), (0.1, 1.6),
        (0.08, 1.7)]
LAMP = [(0.16, 0.0), (0.16, 0.12), (0.09, 0.3), (0.055, 0.4), (0.05, 2.7), (0.12, 2.76), (0.17, 3.1), (0.05, 3.2),
        (0.0, 3.3)]
# fmt: on


def landmark_ground_height_m(x: Float[Array, "*n"], y: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Height of the ground: a few centimetres of swell on the lawn, flat under the temple."""
    swell = 0.05 * np.sin(0.9 * x + 1.0) * np.sin(0.8 * y) + 0.03 * np.sin(2.1 * x - 1.3 * y)
    away = np.clip(np.maximum(np.abs(x) - 3.9, np.abs(y) - 4.6), 0.0, 1.0)
    return np.asarray(swell * away)


def build_landmark(seed: int) -> Scene:
    """The whole scene, the same for the same seed (which only moves the bumps of foliage and rocks)."""
    rng = np.random.default_rng([seed, 1])
    pieces = [(subdivided(mesh), LANDMARK_MATERIALS.index(name)) for name, mesh in (*_temple(), *_garden(rng))]
    pieces += [(mesh, LANDMARK_MATERIALS.index(name)) for name, mesh in _backdrop(rng)]
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh, _ in pieces])
    vertices = np.concatenate([mesh.vertices for mesh, _ in pieces])
    faces = np.concatenate([mesh.faces + at for (mesh, _), at in zip(pieces, offsets, strict=False)])
    material = np.concatenate([np.full(len(mesh.faces), kind) for mesh, kind in pieces])
    middle = vertices[faces].mean(axis=1)
    is_in_region = np.all((middle >= REGION_LOW_M) & (middle <= REGION_HIGH_M), axis=1)
    return Scene(vertices, faces.astype(np.int64), material, is_in_region, REGION_LOW_M, REGION_HIGH_M)


LandmarkPart = tuple[str, trimesh.Trimesh]


def _temple() -> Iterator[LandmarkPart]:
    for i, (half_x, half_y) in enumerate([(3.75, 4.45), (3.42, 4.12), (3.1, 3.8)]):
        yield "ashlar", grid_box((-half_x, -half_y, 0.27 * i - 0.1), (half_x, half_y, 0.27 * (i + 1)))
    floor = 0.81
    spots = [(x, y) for x in (-2.65, -0.9, 0.9, 2.65) for y in (-3.35, 3.35)]
    spots += [(x, y) for x in (-2.65, 2.65) for y in (-1.68, 0.0, 1.68)]
    for x, y in spots:
        at = (x, y, floor)
        yield "marble", grid_box((x - 0.44, y - 0.44, floor), (x + 0.44, y + 0.44, floor + 0.06))
        yield "marble", revolved_profile(COLUMN, at)
        yield "marble", revolved_profile(SHAFT, at, flutes=14)
        yield "marble", revolved_profile(CAPITAL, at)
        yield "marble", grid_box((x - 0.46, y - 0.46, floor + 3.36), (x + 0.46, y + 0.46, floor + 3.5))
    yield from _cella(floor, floor + 3.5)
    yield from _roof(floor + 3.5)


def _cella(low: float, high: float) -> Iterator[LandmarkPart]:
    half_x, half_y, height = 1.75, 2.3, high - low

    def front(u: Array, v: Array) -> Array:
        door = (np.abs(u - half_x) < 0.6) & (v < 2.4)
        return np.where(door, 0.35, niche(u, v, 0.55, 0.9, 1.9, 0.32) + niche(u, v, 2 * half_x - 0.55, 0.9, 1.9, 0.32))

    def side(u: Array, v: Array) -> Array:
        return sum(niche(u, v, at, 0.7, 1.9, 0.42) for at in (0.9, 2.3, 3.7)) + 0.08 * (np.abs(v - 2.75) < 0.07)

    yield (
        "ashlar",
        relief_panel((2 * half_x, height), front, panel_matrix((-half_x, -half_y, low), (1, 0, 0), (0, 0, 1))),
    )
    yield (
        "ashlar",
        relief_panel((2 * half_x, height), front, panel_matrix((half_x, half_y, low), (-1, 0, 0), (0, 0, 1))),
    )
    yield (
        "plaster",
        relief_panel((2 * half_y, height), side, panel_matrix((half_x, -half_y, low), (0, 1, 0), (0, 0, 1))),
    )
    yield (
        "plaster",
        relief_panel((2 * half_y, height), side, panel_matrix((-half_x, half_y, low), (0, -1, 0), (0, 0, 1))),
    )
    for x in (-1.75, 1.75):
        for y in (-1.4, 0.0, 1.4):
            yield "marble", revolved_profile([(r * 0.8, z) for r, z in URN], (x - 0.1 * np.sign(x), y, low + 0.68))


def _roof(low: float) -> Iterator[LandmarkPart]:
    half_x, half_y, rise = 3.25, 3.95, 1.45
    yield "marble", grid_box((-half_x + 0.2, -half_y + 0.2, low), (half_x - 0.2, half_y - 0.2, low + 0.34))
    for x in np.arange(-half_x + 0.35, half_x - 0.3, 0.5):  # triglyphs
        for y in (-half_y + 0.17, half_y - 0.17):
            yield "marble", grid_box((x, y - 0.06, low + 0.36), (x + 0.22, y + 0.06, low + 0.68))
    yield "plaster", grid_box((-half_x + 0.25, -half_y + 0.25, low + 0.34), (half_x - 0.25, half_y - 0.25, low + 0.7))
    eave = low + 0.7
    yield "marble", grid_box((-half_x, -half_y, eave), (half_x, half_y, eave + 0.14))
    top = eave + 0.14
    gable = np.array([[-half_x + 0.2, 0, top], [half_x - 0.2, 0, top], [0, 0, top + rise - 0.12]])
    for y, order in ((-half_y + 0.4, [0, 1, 2]), (half_y - 0.4, [0, 2, 1])):
        yield "plaster", trimesh.Trimesh(gable + np.array([0, y, 0]), [order])
        yield "bronze", bumpy_sphere((0, y, top + 0.5), 0.34, squash=1.0)
    length, slope = 2 * half_y, float(np.hypot(half_x, rise))

    def tiles(u: Array, v: Array) -> Array:
        barrel = 0.07 - 0.07 * np.abs(np.cos(np.pi * u / 0.36)) - 0.03 * (1 - (v / 0.42) % 1)
        edge = (u <= 0) | (u >= length) | (v <= 0)
        return np.where(edge, 0.12, barrel)  # down into the slab, so that no tile shows its hollow side

    for sign in (-1, 1):
        corner = (sign * half_x, -half_y if sign > 0 else half_y, top + 0.16)
        matrix = panel_matrix(corner, (0, sign, 0), (-sign * half_x, 0, rise))
        yield "tiles", relief_panel((length, slope), tiles, matrix)
        slab = grid_box((0, 0, -0.2), (length, slope, -0.09))
        slab.apply_transform(matrix)
        yield "marble", slab
    yield "tiles", grid_box((-0.14, -half_y, top + rise + 0.1), (0.14, half_y, top + rise + 0.28))
    for y in (-half_y + 0.15, half_y - 0.15):
        yield "bronze", revolved_profile([(r * 0.6, z * 0.6) for r, z in URN], (0, y, top + rise + 0.27))
        for x in (-half_x + 0.2, half_x - 0.2):
            yield "marble", bumpy_sphere((x, y, top + 0.42), 0.2)


def _garden(rng: np.random.Generator) -> Iterator[LandmarkPart]:
    yield "brick", grid_box((-6.3, -4.6, -0.2), (-5.98, 4.9, 0.75))
    yield "brick", grid_box((-6.0, 4.6, -0.2), (2.4, 4.92, 0.75))
    for x, y in [(-6.14, -4.6), (-6.14, -1.4), (-6.14, 1.8), (-6.14, 4.76), (-3.3, 4.76), (-0.5, 4.76), (2.4, 4.76)]:
        yield "brick", grid_box((x - 0.24, y - 0.24, -0.2), (x + 0.24, y + 0.24, 1.0))
        yield "ashlar", grid_box((x - 0.3, y - 0.3, 1.0), (x + 0.3, y + 0.3, 1.1))
        yield "marble", bumpy_sphere((x, y, 1.3), 0.22)
    yield from _statue(4.9, -3.9)
    yield "marble", revolved_profile(BASIN, (-4.6, -3.9, 0.0))
    yield "marble", revolved_profile(STEM, (-4.6, -3.9, 0.0))
    drum = revolved_profile([(0.0, -0.45), (0.34, -0.45), (0.34, 0.45), (0.0, 0.45)], (0, 0, 0), flutes=14)
    drum.apply_transform(trimesh.transformations.euler_matrix(1.5, 0.1, 0.5))
    yield "marble", drum.apply_translation([5.3, -0.9, 0.3])
    for x, y, radius in [(5.2, 0.4, 0.42), (4.6, -0.2, 0.25), (-5.0, 0.9, 0.36), (-4.7, 1.5, 0.22)]:
        yield "ashlar", bumpy_sphere((x, y, 0.5 * radius), radius, rng, squash=0.8, bumps=0.07)
    for x, y, radius in [(5.4, 1.9, 0.62), (4.7, 2.5, 0.5), (-4.9, 3.6, 0.72), (-4.2, 3.9, 0.5), (-5.2, -1.6, 0.55)]:
        yield "leaves", bumpy_sphere((x, y, 0.75 * radius), radius, rng)
    for x, y, height in [(5.2, 4.4, 2.4), (-5.0, 2.4, 1.9)]:
        yield "bark", revolved_profile([(0.2, -0.1), (0.13, 0.3), (0.11, height), (0.0, height)], (x, y, 0))
        for angle in range(3):
            dx, dy = 0.5 * np.cos(2.1 * angle + x), 0.5 * np.sin(2.1 * angle + x)
            yield "leaves", bumpy_sphere((x + dx, y + dy, height + 0.1 * angle), 0.62, rng)
        yield "leaves", bumpy_sphere((x, y, height + 0.75), 0.6, rng)
    for x in (-1.9, 1.9):
        yield "bronze", revolved_profile(LAMP, (x, -5.3, 0.0))


def _statue(x: float, y: float) -> Iterator[LandmarkPart]:
    for half, low, high in [(0.62, -0.1, 0.2), (0.48, 0.2, 1.2), (0.58, 1.2, 1.34)]:
        yield "ashlar", grid_box((x - half, y - half, low), (x + half, y + half, high))
    yield "bronze", revolved_profile(ROBE, (x, y, 1.34), flutes=9, depth=0.16)
    yield "bronze", bumpy_sphere((x, y, 3.14), 0.17, squash=1.2)
    for start, end in [((0.26, 0, 2.7), (0.62, -0.2, 3.2)), ((-0.26, 0, 2.7), (-0.4, -0.28, 2.2))]:
        arm = trimesh.creation.cylinder(0.075, segment=np.array([start, end]), sections=20)
        yield "bronze", arm.apply_translation([x, y, 0])
        yield "bronze", bumpy_sphere((x + end[0], y + end[1], end[2]), 0.11)


def _backdrop(rng: np.random.Generator) -> Iterator[LandmarkPart]:
    def lines(low: float, high: float) -> Array:
        """Fine inside the region, its border included, then wider and wider to the horizon."""
        inner = np.linspace(low, high, round((high - low) / 0.08) + 1)
        outer = np.geomspace(0.1, HORIZON_DISTANCE_M, 40)
        return np.concatenate([low - outer[::-1], inner, high + outer])

    xs, ys = (lines(a, b) for a, b in list(zip(REGION_LOW_M, REGION_HIGH_M, strict=True))[:2])
    x, y = np.meshgrid(xs, ys, indexing="ij")
    vertices = np.stack([x, y, landmark_ground_height_m(x, y)], -1).reshape(-1, 3)
    yield "ground", trimesh.Trimesh(vertices, shapes.grid_faces(len(xs), len(ys)), process=False)
    for angle in np.linspace(0, 2 * np.pi, 17)[:-1] + rng.uniform(-0.1, 0.1, 16):
        away, radius = rng.uniform(28, 48), rng.uniform(1.6, 3.2)
        at = (away * np.cos(angle), away * np.sin(angle))
        yield "bark", revolved_profile([(0.3, -0.2), (0.25, 2.0 + radius)], (*at, 0))
        for _ in range(4):
            dx, dy, dz = rng.normal(size=3) * 0.5 * radius
            yield "leaves", bumpy_sphere((at[0] + dx, at[1] + dy, 2.2 + radius + 0.6 * dz), radius, rng)
