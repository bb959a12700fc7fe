"""Rooms seen from inside: an L-shaped living room with furniture and bare walls; an octagon and a cylinder for tests.

A room is one closed surface that faces inwards, and closed solids that stand in it. Metres, z up, floor at z = 0.

Its colours are linear reflectances; walls are nearly uniform. A finish maps the tint of pieces to the colour of their
points, given the points in the room's frame in metres, the number of each point's piece, and solid noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float, Int

from quoin.pipeline.imaging.labels import CEILING, FLOOR, OTHER, WALL
from quoin.tools.synthetic.furniture import LinearColor, RoomPart, furniture_parts
from quoin.tools.synthetic.materials import SolidNoise, cell_random
from quoin.tools.synthetic.shapes import Point3, Scene, closed_box, grid_lines, hollow_prism, voxel_surface

Array = np.ndarray

ROOM_WIDTH_M, ROOM_DEPTH_M, ROOM_HEIGHT_M = 5.2, 4.2, 2.6
NOTCH_M = (3.6, 3.0)  # the corner beyond these x and y is not part of the room: its plan is an L
WINDOW_BOX_M = ((-0.14, 1.2, 0.9), (0.0, 2.9, 2.2))  # a recess in the wall x = 0, the pane at its end
DOOR_BOX_M = ((4.05, -0.06, 0.0), (4.9, 0.0, 2.05))  # a recess in the wall y = 0, the leaf at its end
WALK_PATH_M = [(0.75, 0.8), (4.5, 0.7), (4.4, 2.4), (3.25, 2.75), (3.1, 3.5), (2.9, 2.85), (0.75, 2.75)]
WALL_PAINT: LinearColor = (0.70, 0.67, 0.60)
CEILING_WHITE: LinearColor = (0.80, 0.80, 0.78)
FLOOR_OAK: LinearColor = (0.46, 0.30, 0.17)
TRIM_LACQUER: LinearColor = (0.74, 0.73, 0.70)


@dataclass(frozen=True, kw_only=True)
class Room(Scene):
    """A scene seen from inside. ``tint``: the colour of each face under its pattern; ``piece``: its solid's number."""

    tint: Float[Array, "f 3"]
    piece: Int[Array, "f"]
    path: Float[Array, "k 2"]  # a closed walk through the room, world x and y
    world_from_room: Float[Array, "3 3"]  # patterns follow the room where it is turned


def build_room(seed: int, yaw_deg: float = 0.0) -> Room:
    """The furnished room, the same for the same seed (which moves books, chairs and foliage), turned about z."""
    rng = np.random.default_rng([seed, 7])
    pieces = [*_shell_parts(), *furniture_parts(rng)]
    return _assemble_room(pieces, WALK_PATH_M, (0.0, 90.0), yaw_deg)


def build_octagon_room(seed: int, yaw_deg: float = 0.0, radius_m: float = 2.4) -> Room:
    """A bare room with eight walls, 45° apart, and a few printed boxes."""
    corners = np.radians(22.5 + 45 * np.arange(8))
    return _bare_room(corners, radius_m, (0.0, 45.0, 90.0, 135.0), seed, yaw_deg)


def build_round_room(seed: int, radius_m: float = 2.4) -> Room:
    """A bare round room, its wall of 72 flat strips that face every way, and a few printed boxes."""
    return _bare_room(np.radians(5 * np.arange(72)), radius_m, (), seed, 0.0)


def room_shell() -> trimesh.Trimesh:
    """Floor, ceiling and walls of the furnished room, with the recesses of window and door; closed once merged."""
    recesses = (WINDOW_BOX_M, DOOR_BOX_M)
    corners = [p for recess in recesses for p in recess]
    spots = np.array([(0.0, 0.0, 0.0), (ROOM_WIDTH_M, ROOM_DEPTH_M, ROOM_HEIGHT_M), (*NOTCH_M, 0.0), *corners])
    xs, ys, zs = (grid_lines(spots[:, k].tolist()) for k in range(3))
    x, y, z = np.meshgrid(*[(line[1:] + line[:-1]) / 2 for line in (xs, ys, zs)], indexing="ij")
    free = (x > 0) & (y > 0) & ((x < NOTCH_M[0]) | (y < NOTCH_M[1]))
    for low, high in recesses:
        free |= np.all([(c > a) & (c < b) for c, a, b in zip((x, y, z), low, high, strict=True)], axis=0)
    return voxel_surface(xs, ys, zs, ~free, is_outside_solid=True)


def _shell_parts() -> Iterator[RoomPart]:
    """The shell split by finish: floor, ceiling, walls, pane, recesses, and the skirting boards."""
    mesh = room_shell()
    x, y, z = mesh.triangles_center.T
    recessed = (x < 0) | (y < 0)
    parts = [
        (~recessed & (z < 1e-6), "planks", FLOOR_OAK, FLOOR),
        (~recessed & (z > ROOM_HEIGHT_M - 1e-6), "paint", CEILING_WHITE, CEILING),
        (~recessed & (z > 1e-6) & (z < ROOM_HEIGHT_M - 1e-6), "paint", WALL_PAINT, WALL),
        (x < WINDOW_BOX_M[0][0] + 1e-6, "pane", CEILING_WHITE, OTHER),
        (recessed & (x > WINDOW_BOX_M[0][0] + 1e-6), "lacquer", TRIM_LACQUER, OTHER),
    ]
    for chosen, material, tint, label in parts:
        used, index = np.unique(mesh.faces[chosen], return_inverse=True)
        part = trimesh.Trimesh(mesh.vertices[used], index.reshape(-1, 3), process=False)
        yield RoomPart(part, material, tint, label)
    for low, high in _skirting():
        yield RoomPart(closed_box(low, high), "lacquer", TRIM_LACQUER)


def _skirting(tall: float = 0.08, thick: float = 0.014) -> Iterator[tuple[Point3, Point3]]:
    across, deep, (x, y) = ROOM_WIDTH_M, ROOM_DEPTH_M, NOTCH_M
    door_low, door_high = DOOR_BOX_M[0][0] - 0.07, DOOR_BOX_M[1][0] + 0.07  # the door's frame stands there
    plan: list[tuple[float, float, float, float]] = [
        (0, 0, thick, deep),
        (0, 0, door_low, thick),
        (door_high, 0, across, thick),
        (across - thick, 0, across, y),
        (x - thick, y - thick, across, y),
        (x - thick, y - thick, x, deep),
        (0, deep - thick, x, deep),
    ]
    for x0, y0, x1, y1 in plan:
        yield (x0, y0, 0.0), (x1, y1, tall)


def _bare_room(corners: Float[Array, "n"], radius: float, yaws: Sequence[float], seed: int, yaw_deg: float) -> Room:
    rng = np.random.default_rng([seed, 8])
    floor, ceiling, *walls = hollow_prism(radius * np.stack([np.cos(corners), np.sin(corners)], axis=1), ROOM_HEIGHT_M)
    pieces = [RoomPart(floor, "planks", FLOOR_OAK, FLOOR), RoomPart(ceiling, "paint", CEILING_WHITE, CEILING)]
    pieces += [RoomPart(wall, "paint", WALL_PAINT, WALL) for wall in walls]
    for angle in rng.uniform(0, 6.3, 3) + np.array([0.0, 2.1, 4.2]):
        x, y = 0.7 * radius * np.cos(angle), 0.7 * radius * np.sin(angle)
        half, tall = rng.uniform([0.15, 0.4], [0.3, 0.9])
        pieces.append(
            RoomPart(closed_box((x - half, y - half, 0.0), (x + half, y + half, tall)), "print", (0.6, 0.55, 0.5))
        )
    pieces.append(
        RoomPart(closed_box((-0.4, -0.4, ROOM_HEIGHT_M - 0.1), (0.4, 0.4, ROOM_HEIGHT_M)), "pane", CEILING_WHITE)
    )
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    path = [(0.4 * radius * np.cos(a), 0.4 * radius * np.sin(a)) for a in turns]
    return _assemble_room(pieces, path, yaws, yaw_deg)


def _assemble_room(
    pieces: Sequence[RoomPart], path: Sequence[tuple[float, float]], yaws: Sequence[float], yaw_deg: float
) -> Room:
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    counts = [len(p.mesh.faces) for p in pieces]
    offsets = np.cumsum([0] + [len(p.mesh.vertices) for p in pieces])
    vertices = np.concatenate([p.mesh.vertices for p in pieces]) @ turn.T
    faces = np.concatenate([p.mesh.faces + at for p, at in zip(pieces, offsets, strict=False)]).astype(np.int64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return Room(
        vertices=vertices,
        faces=faces,
        material=np.repeat([FINISHES.index(p.material) for p in pieces], counts),
        is_in_region=np.ones(len(faces), bool),
        region_low_m=(float(low[0]), float(low[1]), float(low[2])),
        region_high_m=(float(high[0]), float(high[1]), float(high[2])),
        label=np.repeat([p.label for p in pieces], counts),
        wall_yaws_deg=tuple(sorted((yaw + yaw_deg) % 180 for yaw in yaws)),
        tint=np.repeat(np.array([p.tint for p in pieces]), counts, axis=0),
        piece=np.repeat(np.arange(len(pieces)), counts),
        path=np.array(path) @ turn[:2, :2].T,
        world_from_room=turn,
    )


# -- finishes ----------------------------------------------------------------------------------------------------------

PLANK_M, BOARD_M, JOINT_M = 0.14, 1.7, 0.003  # width and length of a floor board, the gap between two


def finish_albedo(
    points: Float[Array, "n 3"],
    material: Int[Array, "n"],
    tint: Float[Array, "n 3"],
    piece: Int[Array, "n"],
    noise: SolidNoise,
) -> Float[Array, "n 3"]:
    """Reflectance of points on surfaces of ``material`` (index into FINISHES)."""
    out = np.empty((len(points), 3), np.float32)
    for index, name in enumerate(FINISHES):
        chosen = np.flatnonzero(material == index)
        if len(chosen):
            out[chosen] = _FINISH[name](points[chosen], tint[chosen], piece[chosen], noise)
    return np.clip(out, 0.01, 0.95)


def _paint(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    """Wall paint: the roller's traces differ by half a gray level of 255."""
    return tint * (1 + 0.005 * noise.coarse(points))[:, None]


def _lacquer(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    return tint


def _planks(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    row = np.floor(points[:, 1] / PLANK_M)
    along = points[:, 0] / BOARD_M + 0.37 * (row % 5)
    board = np.floor(along)
    tone = cell_random(row, board)
    row_fraction = points[:, 1] / PLANK_M - row
    joint = (row_fraction * PLANK_M < JOINT_M) | ((along - board) * BOARD_M < JOINT_M)
    grain = _grain(points, np.array([0.1, 1.0, 1.0], np.float32), tone, noise)
    return tint * (0.72 + 0.4 * tone + 0.14 * grain)[:, None] * np.where(joint, 0.4, 1.0)[:, None]


def _wood(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    grain = _grain(points, np.array([0.3, 1.0, 0.3], np.float32), cell_random(piece, piece + 3), noise)
    return tint * (1 + 0.16 * grain)[:, None]


def _grain(points: Array, stretch: Array, shift: Array, noise: SolidNoise) -> Array:
    """Noise stretched along an axis, shifted for every board."""
    return noise.fine((points * stretch + 5 * shift[:, None]).astype(np.float32))


def _fabric(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    return tint * (1 + 0.03 * noise.coarse(points) + 0.015 * noise.fine(points))[:, None]


def _rug(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    u, v = points[:, 0] / 0.17, points[:, 1] / 0.17
    column, row = np.floor(u), np.floor(v)
    diamond = np.abs(u - column - 0.5) + np.abs(v - row - 0.5)
    kind = cell_random(column, row)
    share = np.where(diamond < 0.2 + 0.25 * kind, 0.9, np.where(diamond < 0.45, 0.1, 0.5)) + 0.12 * noise.fine(points)
    accent_color = np.array([0.55, 0.48, 0.36], np.float32)
    return tint + (accent_color - tint) * np.clip(share, 0, 1)[:, None]


def _print(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    """Prints and book covers: patches of three colours with soft and hard edges."""
    moved = (0.6 * points + 3 * cell_random(piece, piece + 1)[:, None]).astype(np.float32)
    broad, fine = noise.fine(moved), noise.fine((2.1 * moved + 1).astype(np.float32))
    first_color = 0.1 + 0.4 * np.stack([cell_random(piece, piece + k) for k in (5, 6, 7)], axis=1)
    second_color = 0.05 + 0.3 * np.stack([cell_random(piece + k, piece) for k in (8, 9, 10)], axis=1)
    mixed = tint + (first_color - tint) * (1 / (1 + np.exp(-6 * broad)))[:, None]
    return np.where((fine > 0.5)[:, None], second_color, mixed) * (1 + 0.15 * fine)[:, None]


def _book(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    """Spines of books: bands of colour, and a column of letters."""
    band = cell_random(np.floor(points[:, 2] / 0.035), piece)
    sign = cell_random(np.floor(points[:, 2] / 0.008), np.floor(points[:, 0] / 0.006), piece)
    light = np.where(band < 0.2, 0.45, np.where(band > 0.75, 1.5, 1.0))
    light = light + 0.5 * ((band > 0.4) & (sign > 0.6))
    return tint * light[:, None] * (1 + 0.1 * noise.fine(points))[:, None]


def _leaf(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    return tint * (0.9 + 0.7 * np.tanh(1.2 * noise.fine(points)))[:, None]


_FINISH: dict[str, Callable[[Array, Array, Array, SolidNoise], Array]] = {
    "paint": _paint,
    "lacquer": _lacquer,
    "pane": _lacquer,
    "planks": _planks,
    "wood": _wood,
    "fabric": _fabric,
    "rug": _rug,
    "print": _print,
    "book": _book,
    "leaf": _leaf,
}
FINISHES = list(_FINISH)
