"""The town: quarters of houses along bent streets, one of sixteen a square with a church, a lake around. Metres, z up.

Every quarter has a random generator of its own, so that it is the same in a town of any size. Street coordinates (s, t)
are those of the straight grid, whose lines lie at multiples of QUARTER_SIZE_M; the world is bent: x = s + bend(t),
y = t + bend(s), which turns a house with its street.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int

from quoin.tools.synthetic.houses import (
    HOUSE_SHAPES,
    TOWN_CELL_M,
    TownPart,
    car_parts,
    church_parts,
    fountain_parts,
    house_parts,
    placed_vertices,
    tree_parts,
)
from quoin.tools.synthetic.shapes import Scene, grid_faces

Array = np.ndarray

# fmt: off
TOWN_MATERIALS = ["ground", "wall", "roof", "slate", "stone", "brick", "gravel", "metal", "lacquer", "glass", "bark",
             "leaves", "water"]
# fmt: on
MAX_TOWN_HEIGHT_M = 30.0


@dataclass(frozen=True, kw_only=True)
class Town(Scene):
    """The town, and what its facades need: the object of each face, the frame and a random seed of each object.

    ``object_frames``: x, y, z of the object's origin, and its yaw in radians. ``extent_m``: size of the town in street
    coordinates, from (0, 0).
    """

    object_index: Int[Array, "f"]
    object_frames: Float[Array, "k 4"]
    object_seeds: Int[Array, "k"]
    extent_m: tuple[float, float]


@dataclass(frozen=True)
class _TownObject:
    """Meshes in a frame of their own, with the street coordinates of its origin and its yaw."""

    pieces: list[TownPart]
    s: float
    t: float
    turn: float = 0.0


def build_town(size: int, seed: int) -> Town:
    """A town of ``size`` quarters, the same for the same seed."""
    columns, rows = grid_shape(size)
    extent = columns * QUARTER_SIZE_M, rows * QUARTER_SIZE_M
    vertices, faces, material, object_index = [], [], [], []
    frames, looks, n_vertices = [(0.0, 0.0, 0.0, 0.0)], [0], 0

    def append_mesh(points: Array, triangles: Array, name: str, number: int) -> None:
        nonlocal n_vertices
        vertices.append(points)
        faces.append(triangles + n_vertices)
        material.append(np.full(len(triangles), TOWN_MATERIALS.index(name)))
        object_index.append(np.full(len(triangles), number))
        n_vertices += len(points)

    for column in range(columns):
        for row in range(rows):
            rng = np.random.default_rng([seed, 1, column, row])
            for placed_object in _quarter(bool(is_square(np.array(column), np.array(row))), rng):
                s, t = column * QUARTER_SIZE_M + placed_object.s, row * QUARTER_SIZE_M + placed_object.t
                x, y = (float(v) for v in world_from_street(np.array(s), np.array(t)))
                z, yaw = float(town_ground_height_m(np.array(x), np.array(y))), placed_object.turn + street_yaw(s, t)
                for name, mesh in placed_object.pieces:
                    append_mesh(placed_vertices(mesh, (x, y, z), yaw), mesh.faces, name, len(frames))
                frames.append((x, y, z, yaw))
                looks.append(int(rng.integers(1 << 30)))
    for name, mesh in _land(extent):
        append_mesh(np.asarray(mesh.vertices), mesh.faces, name, 0)
    points, triangles, kinds = np.concatenate(vertices), np.concatenate(faces), np.concatenate(material)
    dry = kinds != TOWN_MATERIALS.index("water")
    land = points[np.unique(triangles[dry])]
    (x0, y0, _), (x1, y1, _) = land.min(axis=0), land.max(axis=0)
    return Town(
        points,
        triangles.astype(np.int64),
        kinds,
        dry,
        (float(x0), float(y0), LAKE_HEIGHT_M),
        (float(x1), float(y1), MAX_TOWN_HEIGHT_M),
        object_index=np.concatenate(object_index),
        object_frames=np.array(frames),
        object_seeds=np.array(looks),
        extent_m=extent,
    )


def _quarter(square: bool, rng: np.random.Generator) -> Iterator[_TownObject]:
    """Objects between four streets; street coordinates from the quarter's own corner."""
    low, high = PAVEMENT_EDGE_M, QUARTER_SIZE_M - PAVEMENT_EDGE_M
    if square:
        yield _TownObject(list(church_parts(rng)), 0.58 * QUARTER_SIZE_M, 0.52 * QUARTER_SIZE_M, rng.normal(0, 0.05))
        yield _TownObject(list(fountain_parts()), 0.22 * QUARTER_SIZE_M, 0.3 * QUARTER_SIZE_M)
        spots = [(low + 1.5, t) for t in np.linspace(low + 13, high - 2, 3)] + [(high - 1.5, t) for t in (9.0, 20.0)]
    else:
        yield from _houses(low, high, rng)
        middle = QUARTER_SIZE_M / 2
        spots = [(s, middle + rng.normal(0, 0.8)) for s in np.linspace(low + 3, high - 3, 6) if rng.random() < 0.75]
    for s, t in spots:
        yield _TownObject(list(tree_parts(rng.uniform(4.5, 7.5), rng)), s + rng.normal(0, 0.5), t)
    for _ in range(int(rng.integers(2, 5))):  # cars at the kerbs of the quarter's two streets
        along, beside = rng.uniform(6, QUARTER_SIZE_M - 6), (ROAD_HALF_WIDTH_M - 1.0) * rng.choice([-1, 1])
        if rng.random() < 0.5:
            yield _TownObject(list(car_parts()), along, beside)
        else:
            yield _TownObject(list(car_parts()), beside, along, np.pi / 2)


def _houses(low: float, high: float, rng: np.random.Generator) -> Iterator[_TownObject]:
    """Two rows of houses back to back, as lots or as a terrace."""
    for row in (0, 1):
        terrace = rng.random() < 0.35
        count = int(rng.integers(3, 5)) if terrace else 3
        width = (high - low) / count
        floors, shape, depth = int(rng.integers(2, 4)), str(rng.choice(["gable", "flat"])), rng.uniform(8.0, 9.5)
        for lot in range(count):
            if terrace:
                pieces = list(house_parts(shape, width, depth, floors, rng))
                start, back = low + lot * width, 0.6
            else:
                if rng.random() < 0.06:  # a lot that nobody has built on
                    continue
                wide, back = rng.uniform(6.8, width - 1.4), rng.uniform(1.0, 2.4)
                chosen = str(rng.choice(HOUSE_SHAPES))
                pieces = list(house_parts(chosen, wide, rng.uniform(7.2, 9.2), int(rng.integers(1, 4)), rng))
                start = low + lot * width + rng.uniform(0.4, width - wide - 0.4)
            if row == 0:
                yield _TownObject(pieces, start, low + back)
            else:
                yield _TownObject(pieces, QUARTER_SIZE_M - start, high - back, np.pi)


def _land(extent: tuple[float, float]) -> Iterator[TownPart]:
    """The ground up to the quay, the quay wall and the water."""
    lines = [np.linspace(-QUAY_EDGE_M, e + QUAY_EDGE_M, round((e + 2 * QUAY_EDGE_M) / TOWN_CELL_M) + 1) for e in extent]
    s, t = np.meshgrid(*lines, indexing="ij")
    x, y = world_from_street(s, t)
    top = np.stack([x, y, town_ground_height_m(x, y)], axis=-1)
    yield "ground", trimesh.Trimesh(top.reshape(-1, 3), grid_faces(*s.shape), process=False)
    for edge in (top[:, 0], top[-1, :], top[::-1, -1], top[0, ::-1]):
        foot = np.concatenate([edge[:, :2], np.full((len(edge), 1), LAKE_HEIGHT_M - 0.5)], axis=1)
        share = np.linspace(0, 1, 8)[None, :, None]
        wall = foot[:, None] * (1 - share) + edge[:, None] * share
        yield "stone", trimesh.Trimesh(wall.reshape(-1, 3), grid_faces(len(edge), 8), process=False)
    (w, h), far = extent, LAKE_WIDTH_M
    corners = np.array([(-far, -far), (w + far, -far), (w + far, h + far), (-far, h + far)])
    lake = np.column_stack([corners, np.full(4, LAKE_HEIGHT_M)])
    yield "water", trimesh.Trimesh(lake, [[0, 1, 2], [0, 2, 3]], process=False)


# -- streets -----------------------------------------------------------------------------------------------------------

QUARTER_SIZE_M = 38.0  # from one street to the next
ROAD_HALF_WIDTH_M, PAVEMENT_EDGE_M = 2.6, 3.7  # from the middle of a street to the kerb, and to the gardens
QUAY_EDGE_M = 4.4  # from the middle of the outermost street to the water
BEND_AMPLITUDE_M, BEND_PERIOD_M = 0.9, 47.0
LAKE_HEIGHT_M = -2.0  # height of the water
LAKE_WIDTH_M = 160.0  # how far the water goes


def grid_shape(size: int) -> tuple[int, int]:
    """Quarters along s and t of a town of ``size`` quarters: the two factors nearest to each other."""
    along = max(n for n in range(1, int(np.sqrt(size)) + 1) if size % n == 0)
    return size // along, along


def is_square(column: Int[Array, "*n"], row: Int[Array, "*n"]) -> Bool[Array, "*n"]:
    """Whether a quarter is a square with a church: one of sixteen."""
    return np.asarray((column % 4 == 1) & (row % 4 == 1))


def street_bend(along: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Sideways offset of a street from its straight line, in metres."""
    return np.asarray(BEND_AMPLITUDE_M * np.sin(2 * np.pi * along / BEND_PERIOD_M + 0.7))


def world_from_street(s: Float[Array, "*n"], t: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """World x, y of street coordinates."""
    return np.asarray(s + street_bend(t)), np.asarray(t + street_bend(s))


def street_from_world(x: Float[Array, "*n"], y: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Street coordinates of world x, y (a fixed point: bends are slight, an iteration gains a factor of 70)."""
    s, t = x, y
    for _ in range(3):
        s = x - street_bend(t)
        t = y - street_bend(s)
    return np.asarray(s), np.asarray(t)


def street_yaw(s: float, t: float) -> float:
    """Direction of the s axis at a place, radians from x to y."""
    rate = 2 * np.pi / BEND_PERIOD_M
    return float(np.arctan(BEND_AMPLITUDE_M * rate * np.cos(rate * s + 0.7)))


def town_ground_height_m(x: Float[Array, "*n"], y: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Height of the ground: swells of a metre over 70 m."""
    return np.asarray(0.7 * np.sin(x / 23.0 + 0.4) * np.sin(y / 19.0) + 0.35 * np.sin(x / 11.0 - y / 13.0))
