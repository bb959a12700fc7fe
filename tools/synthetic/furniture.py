"""Furniture of the living room and pictures on its walls: closed solids, textured and plain. Metres, z up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import trimesh

from quoin.pipeline.imaging.labels import OTHER
from quoin.tools.synthetic.shapes import Point3, bumpy_sphere, closed_box, revolved_profile, rounded_box

LinearColor = tuple[float, float, float]


@dataclass(frozen=True)
class RoomPart:
    """A closed solid, or a part of the shell, of one finish (rooms.py) and tint."""

    mesh: trimesh.Trimesh
    material: str
    tint: LinearColor
    label: int = OTHER


WALNUT: LinearColor = (0.24, 0.14, 0.08)
BEECH: LinearColor = (0.52, 0.37, 0.22)
FURNITURE_WHITE: LinearColor = (0.72, 0.72, 0.70)
BLACK: LinearColor = (0.035, 0.035, 0.04)
GRAY_BLUE: LinearColor = (0.17, 0.22, 0.30)
STEEL: LinearColor = (0.40, 0.41, 0.42)
CLAY: LinearColor = (0.42, 0.20, 0.12)
GREEN: LinearColor = (0.10, 0.20, 0.05)
CREAM: LinearColor = (0.62, 0.56, 0.44)
BRICK_RED: LinearColor = (0.30, 0.07, 0.06)

# Turned profiles: (radius, height) in metres, closed.
# fmt: off
BOWL = [(0.0, 0.0), (0.06, 0.0), (0.1, 0.03), (0.15, 0.09), (0.14, 0.09), (0.09, 0.035), (0.0, 0.015)]
BOTTLE = [(0.0, 0.0), (0.038, 0.0), (0.04, 0.02), (0.04, 0.16), (0.015, 0.22), (0.015, 0.29), (0.0, 0.29)]
MUG = [(0.0, 0.0), (0.038, 0.0), (0.04, 0.095), (0.034, 0.095), (0.032, 0.01), (0.0, 0.01)]
VASE = [(0.0, 0.0), (0.06, 0.0), (0.1, 0.1), (0.11, 0.17), (0.06, 0.28), (0.07, 0.33), (0.055, 0.33), (0.045, 0.28),
        (0.0, 0.25)]
POT = [(0.0, 0.0), (0.13, 0.0), (0.18, 0.3), (0.16, 0.3), (0.15, 0.26), (0.0, 0.26)]
LAMP_FOOT = [(0.0, 0.0), (0.15, 0.0), (0.15, 0.02), (0.014, 0.035), (0.014, 1.5), (0.0, 1.5)]
LAMP_SHADE = [(0.2, 1.42), (0.13, 1.72), (0.122, 1.72), (0.192, 1.42), (0.2, 1.42)]
# fmt: on


def furniture_parts(rng: np.random.Generator) -> Iterator[RoomPart]:
    """All pieces; ``rng`` moves books, chairs and foliage."""
    yield from _window()
    yield from _door()
    yield from _radiator()
    yield from _shelf(rng)
    yield from _table(rng)
    yield from _sofa()
    yield from _cabinet(rng)
    yield from _picture((1.35, 4.17, 1.4), (2.35, 4.2, 2.05))
    yield from _picture((5.17, 1.15, 1.25), (5.2, 1.95, 1.8))
    yield RoomPart(closed_box((0.85, 2.15, 0.0), (2.95, 3.3, 0.012)), "rug", BRICK_RED)
    yield RoomPart(revolved_profile(LAMP_FOOT, (0.4, 3.75, 0.0)), "lacquer", BLACK)
    yield RoomPart(revolved_profile(LAMP_SHADE, (0.4, 3.75, 0.0)), "fabric", CREAM)
    x, y = 4.85, 2.64
    yield RoomPart(revolved_profile(POT, (x, y, 0.0)), "lacquer", CLAY)
    for dx, dy, z, radius in [(0, 0, 0.42, 0.2), (0.08, -0.06, 0.68, 0.2), (-0.07, 0.05, 0.82, 0.17), (0, 0, 1, 0.12)]:
        yield RoomPart(bumpy_sphere((x + dx, y + dy, z), radius, rng), "leaf", GREEN)


def _window() -> Iterator[RoomPart]:
    low, high = (-0.13, 1.2, 0.9), (-0.07, 2.9, 2.2)
    for y in (1.2, 2.02, 2.84):
        yield RoomPart(closed_box((low[0], y, low[2]), (high[0], y + 0.06, high[2])), "lacquer", FURNITURE_WHITE)
    for z in (0.9, 2.14):
        yield RoomPart(closed_box((low[0], low[1] + 0.06, z), (high[0], 2.84, z + 0.06)), "lacquer", FURNITURE_WHITE)
    yield RoomPart(closed_box((0.0, 1.14, 0.87), (0.09, 2.96, 0.9)), "lacquer", FURNITURE_WHITE)


def _door() -> Iterator[RoomPart]:
    for x0, x1, z0, z1 in [(3.98, 4.05, 0.0, 2.12), (4.9, 4.97, 0.0, 2.12), (4.05, 4.9, 2.05, 2.12)]:
        yield RoomPart(closed_box((x0, 0.0, z0), (x1, 0.02, z1)), "lacquer", FURNITURE_WHITE)
    for z0, z1 in [(0.2, 0.95), (1.1, 1.9)]:
        yield RoomPart(closed_box((4.17, -0.06, z0), (4.78, -0.05, z1)), "lacquer", FURNITURE_WHITE)
    yield RoomPart(closed_box((4.11, -0.06, 1.0), (4.14, 0.0, 1.03)), "lacquer", STEEL)
    yield RoomPart(closed_box((4.11, 0.0, 1.005), (4.23, 0.018, 1.025)), "lacquer", STEEL)


def _radiator() -> Iterator[RoomPart]:
    yield RoomPart(closed_box((0.035, 1.35, 0.14), (0.09, 2.75, 0.72)), "lacquer", FURNITURE_WHITE)
    for y in np.arange(1.37, 2.72, 0.06):
        yield RoomPart(closed_box((0.08, float(y), 0.16), (0.11, float(y) + 0.025, 0.7)), "lacquer", FURNITURE_WHITE)
    yield RoomPart(closed_box((0.05, 2.75, 0.18), (0.07, 2.85, 0.2)), "lacquer", STEEL)


def _shelf(rng: np.random.Generator) -> Iterator[RoomPart]:
    left, right, deep, tall, thick = 0.5, 1.75, 0.28, 1.9, 0.022
    for x in (left, (left + right) / 2, right - thick):
        yield RoomPart(closed_box((x, 0.015, 0.0), (x + thick, deep, tall)), "wood", WALNUT)
    yield RoomPart(closed_box((left, 0.015, 0.0), (right, 0.025, tall)), "wood", WALNUT)
    levels = [0.06, 0.43, 0.8, 1.17, 1.54, tall - thick]
    for z in levels:
        yield RoomPart(closed_box((left, 0.02, z), (right, deep, z + thick)), "wood", WALNUT)
    for z in levels[:-1]:
        for start in (left, (left + right) / 2):
            yield from _books((start + thick, 0.03, z + thick), (right - left) / 2 - 2 * thick, 0.31, rng)


def _books(at: Point3, width: float, tall: float, rng: np.random.Generator) -> Iterator[RoomPart]:
    """A row of books from ``at`` along x, spines towards y, with some gaps."""
    x = at[0] + 0.004
    while True:
        thick, high, deep = rng.uniform(0.014, 0.05), tall * rng.uniform(0.6, 0.95), rng.uniform(0.13, 0.21)
        if x + thick > at[0] + width:
            return
        colour = 0.6 * rng.uniform(0.02, 0.6) + 0.4 * rng.uniform(0.02, 0.6, 3)
        if rng.uniform() < 0.9:
            mesh = closed_box((x, at[1], at[2]), (x + thick, at[1] + deep, at[2] + high))
            yield RoomPart(mesh, "book", (float(colour[0]), float(colour[1]), float(colour[2])))
        x += thick + 0.002


def _table(rng: np.random.Generator) -> Iterator[RoomPart]:
    (x0, y0), (x1, y1), top = (2.4, 1.35), (3.8, 2.15), 0.74
    yield RoomPart(closed_box((x0, y0, top - 0.03), (x1, y1, top)), "wood", BEECH)
    for x in (x0 + 0.05, x1 - 0.09):
        for y in (y0 + 0.05, y1 - 0.09):
            yield RoomPart(closed_box((x, y, 0.0), (x + 0.04, y + 0.04, top - 0.02)), "wood", BEECH)
    for x, y, yaw in [(2.75, 1.15, 180), (3.4, 1.1, 180), (2.8, 2.38, 0), (3.45, 2.4, 0), (4.05, 1.75, -90)]:
        yield from _chair(x, y, yaw + rng.normal(0, 7))
    yield RoomPart(revolved_profile(BOWL, (3.05, 1.8, top)), "lacquer", CLAY)
    for dx, dy, z in [(0.04, 0.0, 0.07), (-0.05, 0.03, 0.07), (0.0, -0.05, 0.075)]:
        yield RoomPart(bumpy_sphere((3.05 + dx, 1.8 + dy, top + z), 0.038), "leaf", (0.45, 0.16, 0.04))
    yield RoomPart(revolved_profile(BOTTLE, (3.45, 1.95, top)), "lacquer", GREEN)
    yield RoomPart(revolved_profile(MUG, (2.62, 1.6, top)), "lacquer", FURNITURE_WHITE)
    yield from _stack(3.5, 1.5, top, rng)
    yield RoomPart(closed_box((2.72, 1.5, top), (3.02, 1.72, top + 0.006)), "print", (0.62, 0.6, 0.55))


def _stack(x: float, y: float, z: float, rng: np.random.Generator) -> Iterator[RoomPart]:
    for half_x, half_y, thick in [(0.13, 0.1, 0.03), (0.12, 0.085, 0.022), (0.1, 0.075, 0.035)]:
        mesh = closed_box((-half_x, -half_y, 0.0), (half_x, half_y, thick))
        yield RoomPart(_place_mesh(mesh, (x, y, z), rng.normal(0, 12)), "print", (0.5, 0.45, 0.4))
        z += thick


def _chair(x: float, y: float, yaw_deg: float) -> Iterator[RoomPart]:
    """A chair, its back towards +y before the yaw: a seat of 42 cm, legs of 3 cm."""
    half, leg = 0.21, 0.03
    parts = [((-half, -half, 0.43), (half, half, 0.455))]
    for sx in (-half, half - leg):
        parts += [((sx, -half, 0.0), (sx + leg, -half + leg, 0.44)), ((sx, half - leg, 0.0), (sx + leg, half, 0.88))]
    parts += [((-half + leg, half - 0.024, z), (half - leg, half - 0.006, z + 0.07)) for z in (0.6, 0.79)]
    for low, high in parts:
        yield RoomPart(_place_mesh(closed_box(low, high), (x, y, 0.0), yaw_deg), "lacquer", BLACK)


def _place_mesh(mesh: trimesh.Trimesh, at: Point3, yaw_deg: float) -> trimesh.Trimesh:
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.radians(yaw_deg), [0, 0, 1]))
    return mesh.apply_translation(at)


def _sofa() -> Iterator[RoomPart]:
    x0, x1, y0, y1 = 0.85, 2.85, 3.3, 4.15
    parts = [((x0, y0 + 0.02, 0.06), (x1, y1, 0.3), 0.05), ((x0 + 0.1, y1 - 0.26, 0.1), (x1 - 0.1, y1, 0.84), 0.11)]
    parts += [((x, y0, 0.08), (x + 0.22, y1 - 0.02, 0.6), 0.1) for x in (x0, x1 - 0.22)]
    middle = (x0 + x1) / 2
    for a, b in [(x0 + 0.21, middle), (middle, x1 - 0.21)]:
        parts += [((a, y0 + 0.01, 0.27), (b, y1 - 0.22, 0.46), 0.07), ((a, y1 - 0.42, 0.4), (b, y1 - 0.2, 0.78), 0.09)]
    for low, high, radius in parts:
        yield RoomPart(rounded_box(low, high, radius), "fabric", GRAY_BLUE)
    for x in (x0 + 0.1, x1 - 0.15):
        for y in (y0 + 0.08, y1 - 0.12):
            yield RoomPart(closed_box((x, y, 0.0), (x + 0.05, y + 0.05, 0.08)), "lacquer", BLACK)
    cushion = rounded_box((-0.21, -0.07, -0.21), (0.21, 0.07, 0.21), 0.069)
    cushion.apply_transform(trimesh.transformations.euler_matrix(-0.35, 0.1, 0.25))
    yield RoomPart(cushion.apply_translation((2.35, 3.68, 0.66)), "print", (0.55, 0.35, 0.15))


def _cabinet(rng: np.random.Generator) -> Iterator[RoomPart]:
    """A low white cabinet whose front shows only the gaps between its doors, with a few things on top."""
    x0, y0, y1 = 4.76, 0.9, 2.3
    yield RoomPart(closed_box((x0 + 0.05, y0 + 0.03, 0.0), (5.18, y1 - 0.03, 0.08)), "lacquer", BLACK)
    yield RoomPart(closed_box((x0 + 0.02, y0, 0.08), (5.18, y1, 0.6)), "lacquer", FURNITURE_WHITE)
    for y in np.linspace(y0, y1, 4)[:-1]:
        door = closed_box((x0, float(y) + 0.004, 0.09), (x0 + 0.03, float(y) + (y1 - y0) / 3 - 0.004, 0.58))
        yield RoomPart(door, "lacquer", FURNITURE_WHITE)
    yield RoomPart(revolved_profile(VASE, (4.98, 2.05, 0.6)), "lacquer", CREAM)
    yield RoomPart(closed_box((5.08, 1.05, 0.6), (5.11, 1.75, 1.02)), "lacquer", BLACK)  # a dark screen
    yield RoomPart(closed_box((4.98, 1.25, 0.6), (5.15, 1.55, 0.612)), "lacquer", BLACK)
    yield from _stack(4.95, 1.88, 0.6, rng)


def _picture(low: Point3, high: Point3) -> Iterator[RoomPart]:
    """A dark frame on a wall of constant x or y, with a print 6 mm thick in it."""
    flat = 0 if high[0] - low[0] < high[1] - low[1] else 1
    yield RoomPart(closed_box(low, high), "wood", WALNUT)
    inner_low, inner_high = np.array(low) + 0.04, np.array(high) - 0.04
    inner_low[flat], inner_high[flat] = low[flat] - 0.006, low[flat]
    corners = [(float(c[0]), float(c[1]), float(c[2])) for c in (inner_low, inner_high)]
    yield RoomPart(closed_box(*corners), "print", (0.6, 0.5, 0.35))
