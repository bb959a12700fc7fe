"""The town: quarters of houses along bent streets, one of sixteen a square with a church, a lake around. Metres, z up.

Every quarter has a random generator of its own, so that it is the same in a town of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float, Int

from quoin.tools.synthetic.houses import CELL_M, SHAPES, Piece, car, church, fountain, house, placed, tree
from quoin.tools.synthetic.scene import Scene
from quoin.tools.synthetic.shapes import grid_faces
from quoin.tools.synthetic.streets import (
    LAKE_M,
    PAVEMENT_M,
    QUARTER_M,
    QUAY_M,
    ROAD_M,
    SHORE_M,
    grid_of,
    ground_height_m,
    is_square,
    world_of,
    yaw_at,
)

Array = np.ndarray
# fmt: off
MATERIALS = ["ground", "wall", "roof", "slate", "stone", "brick", "gravel", "metal", "lacquer", "glass", "bark",
             "leaves", "water"]
# fmt: on
TALLEST_M = 30.0


@dataclass(frozen=True, kw_only=True)
class Town(Scene):
    """The town with what its paint needs: of every face the thing it belongs to, of every thing its frame and look.

    ``thing_frame`` [k, 4]: x, y, z of its origin and its yaw (radians); ``thing_look`` [k]: a number that tells things
    apart. ``extent_m``: size in street coordinates, from (0, 0).
    """

    thing: Int[Array, "f"]
    thing_frame: Float[Array, "k 4"]
    thing_look: Int[Array, "k"]
    extent_m: tuple[float, float]


@dataclass(frozen=True)
class _Thing:
    """Pieces in a frame of their own, and where it stands: street coordinates of its origin and a turn."""

    pieces: list[Piece]
    s: float
    t: float
    turn: float = 0.0


def build(size: int, seed: int) -> Town:
    """A town of ``size`` quarters, the same for the same seed."""
    columns, rows = grid_of(size)
    extent = columns * QUARTER_M, rows * QUARTER_M
    vertices, faces, material, thing = [], [], [], []
    frames, looks, n_vertices = [(0.0, 0.0, 0.0, 0.0)], [0], 0

    def put(points: Array, triangles: Array, name: str, number: int) -> None:
        nonlocal n_vertices
        vertices.append(points)
        faces.append(triangles + n_vertices)
        material.append(np.full(len(triangles), MATERIALS.index(name)))
        thing.append(np.full(len(triangles), number))
        n_vertices += len(points)

    for column in range(columns):
        for row in range(rows):
            rng = np.random.default_rng([seed, 1, column, row])
            for one in _quarter(bool(is_square(np.array(column), np.array(row))), rng):
                s, t = column * QUARTER_M + one.s, row * QUARTER_M + one.t
                x, y = (float(v) for v in world_of(np.array(s), np.array(t)))
                z, yaw = float(ground_height_m(np.array(x), np.array(y))), one.turn + yaw_at(s, t)
                for name, mesh in one.pieces:
                    put(placed(mesh, (x, y, z), yaw), mesh.faces, name, len(frames))
                frames.append((x, y, z, yaw))
                looks.append(int(rng.integers(1 << 30)))
    for name, mesh in _land(extent):
        put(np.asarray(mesh.vertices), mesh.faces, name, 0)
    points, triangles, kinds = np.concatenate(vertices), np.concatenate(faces), np.concatenate(material)
    dry = kinds != MATERIALS.index("water")
    land = points[np.unique(triangles[dry])]
    (x0, y0, _), (x1, y1, _) = land.min(axis=0), land.max(axis=0)
    return Town(
        points,
        triangles.astype(np.int64),
        kinds,
        dry,
        (float(x0), float(y0), LAKE_M),
        (float(x1), float(y1), TALLEST_M),
        thing=np.concatenate(thing),
        thing_frame=np.array(frames),
        thing_look=np.array(looks),
        extent_m=extent,
    )


def _quarter(square: bool, rng: np.random.Generator) -> Iterator[_Thing]:
    """What stands between four streets; street coordinates from the quarter's own corner."""
    low, high = PAVEMENT_M, QUARTER_M - PAVEMENT_M
    if square:
        yield _Thing(list(church(rng)), 0.58 * QUARTER_M, 0.52 * QUARTER_M, rng.normal(0, 0.05))
        yield _Thing(list(fountain()), 0.22 * QUARTER_M, 0.3 * QUARTER_M)
        spots = [(low + 1.5, t) for t in np.linspace(low + 13, high - 2, 3)] + [(high - 1.5, t) for t in (9.0, 20.0)]
    else:
        yield from _houses(low, high, rng)
        middle = QUARTER_M / 2
        spots = [(s, middle + rng.normal(0, 0.8)) for s in np.linspace(low + 3, high - 3, 6) if rng.random() < 0.75]
    for s, t in spots:
        yield _Thing(list(tree(rng.uniform(4.5, 7.5), rng)), s + rng.normal(0, 0.5), t)
    for _ in range(int(rng.integers(2, 5))):  # cars at the kerbs of the quarter's two streets
        along, beside = rng.uniform(6, QUARTER_M - 6), (ROAD_M - 1.0) * rng.choice([-1, 1])
        if rng.random() < 0.5:
            yield _Thing(list(car()), along, beside)
        else:
            yield _Thing(list(car()), beside, along, np.pi / 2)


def _houses(low: float, high: float, rng: np.random.Generator) -> Iterator[_Thing]:
    """Two rows of houses back to back, as lots or as a terrace."""
    for row in (0, 1):
        terrace = rng.random() < 0.35
        count = int(rng.integers(3, 5)) if terrace else 3
        width = (high - low) / count
        floors, shape, depth = int(rng.integers(2, 4)), str(rng.choice(["gable", "flat"])), rng.uniform(8.0, 9.5)
        for lot in range(count):
            if terrace:
                pieces = list(house(shape, width, depth, floors, rng))
                start, back = low + lot * width, 0.6
            else:
                if rng.random() < 0.06:  # a lot that nobody has built on
                    continue
                wide, back = rng.uniform(6.8, width - 1.4), rng.uniform(1.0, 2.4)
                chosen = str(rng.choice(SHAPES))
                pieces = list(house(chosen, wide, rng.uniform(7.2, 9.2), int(rng.integers(1, 4)), rng))
                start = low + lot * width + rng.uniform(0.4, width - wide - 0.4)
            if row == 0:
                yield _Thing(pieces, start, low + back)
            else:
                yield _Thing(pieces, QUARTER_M - start, high - back, np.pi)


def _land(extent: tuple[float, float]) -> Iterator[Piece]:
    """The ground up to the quay, the quay's wall, the water."""
    lines = [np.linspace(-QUAY_M, e + QUAY_M, round((e + 2 * QUAY_M) / CELL_M) + 1) for e in extent]
    s, t = np.meshgrid(*lines, indexing="ij")
    x, y = world_of(s, t)
    top = np.stack([x, y, ground_height_m(x, y)], axis=-1)
    yield "ground", trimesh.Trimesh(top.reshape(-1, 3), grid_faces(*s.shape), process=False)
    for edge in (top[:, 0], top[-1, :], top[::-1, -1], top[0, ::-1]):
        foot = np.concatenate([edge[:, :2], np.full((len(edge), 1), LAKE_M - 0.5)], axis=1)
        share = np.linspace(0, 1, 8)[None, :, None]
        wall = foot[:, None] * (1 - share) + edge[:, None] * share
        yield "stone", trimesh.Trimesh(wall.reshape(-1, 3), grid_faces(len(edge), 8), process=False)
    (w, h), far = extent, SHORE_M
    corners = np.array([(-far, -far), (w + far, -far), (w + far, h + far), (-far, h + far)])
    lake = np.column_stack([corners, np.full(4, LAKE_M)])
    yield "water", trimesh.Trimesh(lake, [[0, 1, 2], [0, 2, 3]], process=False)
