"""Objects of a town, built of frusta and spheres: houses of several shapes, a church, trees, cars.

Each is in the frame of its lot: x along the street, y into the garden, z up from the ground; metres.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import trimesh
from jaxtyping import Float

from quoin.tools.synthetic.shapes import bumpy_sphere, grid_faces, revolved_profile

Array = np.ndarray
Rect = tuple[float, float, float, float]  # x0, y0, x1, y1; may be a line or a point
TownPart = tuple[str, trimesh.Trimesh]
TOWN_CELL_M = 0.5  # size of faces, as visibility is decided face by face
FOUNDATION_DEPTH_M = 1.2  # of walls below the ground, so that no house floats on a slope
STOREY_HEIGHT_M = 2.9

HOUSE_SHAPES = ("gable", "gable", "across", "hip", "flat", "mansard", "wing")


def frustum(low: Rect, low_z: float, high: Rect, high_z: float, *, bottom: bool = False) -> trimesh.Trimesh:
    """The sides and the top between two level rectangles, the upper of which may be a line (a ridge) or a point."""
    below, above = (
        np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])
        for (x0, y0, x1, y1), z in ((low, low_z), (high, high_z))
    )
    sides = [(below[i], below[(i + 1) % 4], above[(i + 1) % 4], above[i]) for i in range(4)]
    sides.append(tuple(above))
    if bottom:
        sides.append(tuple(below[::-1]))
    patches = [_patch(*side) for side in sides]
    return trimesh.util.concatenate([patch for patch in patches if patch is not None])


def _patch(a: Array, b: Array, c: Array, d: Array) -> trimesh.Trimesh | None:
    """The quadrilateral a b c d in cells, without faces of no area; None where none is left."""
    along = max(np.linalg.norm(b - a), np.linalg.norm(c - d))
    across = max(np.linalg.norm(d - a), np.linalg.norm(c - b))
    n, m = (int(np.ceil(length / TOWN_CELL_M)) + 1 for length in (along, across))
    if min(along, across) < 1e-6:
        return None
    u, v = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, m), indexing="ij")
    u, v = u[..., None], v[..., None]
    grid = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)
    mesh = trimesh.Trimesh(grid.reshape(-1, 3), grid_faces(n, m), process=False)
    mesh.update_faces(mesh.area_faces > 1e-6)
    return mesh


def frustum_box(low: tuple[float, float, float], high: tuple[float, float, float]) -> trimesh.Trimesh:
    rect = (low[0], low[1], high[0], high[1])
    return frustum(rect, low[2], rect, high[2], bottom=True)


def inset_rect(rect: Rect, by: float) -> Rect:
    """A rectangle with ``by`` taken off every side, added where negative."""
    return rect[0] + by, rect[1] + by, rect[2] - by, rect[3] - by


def ridge_line(rect: Rect, *, along_x: bool, hip: float = 0.0) -> Rect:
    """The line in the middle of a rectangle, ``hip`` short of its ends."""
    x0, y0, x1, y1 = rect
    if along_x:
        return x0 + hip, (y0 + y1) / 2, x1 - hip, (y0 + y1) / 2
    return (x0 + x1) / 2, y0 + hip, (x0 + x1) / 2, y1 - hip


def house_parts(shape: str, width: float, depth: float, floors: int, rng: np.random.Generator) -> Iterator[TownPart]:
    """A house over (0, 0) to (width, depth): walls, roof, chimney, and a wing or dormers with some shapes."""
    eaves = STOREY_HEIGHT_M * floors + rng.uniform(0.2, 0.6)
    plan: Rect = (0.0, 0.0, width, depth)
    pitch = rng.uniform(0.65, 1.0)
    if shape == "flat":
        yield "wall", frustum(plan, -FOUNDATION_DEPTH_M, plan, eaves)
        yield "gravel", frustum(inset_rect(plan, 0.3), eaves - 0.4, inset_rect(plan, 0.3), eaves + 0.01)
        for x0, y0, x1, y1 in _border(plan, 0.3):
            yield "wall", frustum_box((x0, y0, eaves), (x1, y1, eaves + 0.55))
        x, y = rng.uniform(1, width - 3), rng.uniform(1, depth - 3)
        yield "metal", frustum_box((x, y, eaves), (x + 1.8, y + 1.4, eaves + 1.1))
        return
    yield "wall", frustum(plan, -FOUNDATION_DEPTH_M, plan, eaves)
    eaves_rect = inset_rect(plan, -0.45)
    if shape == "mansard":
        upper = inset_rect(eaves_rect, 1.5)
        yield "roof", frustum(eaves_rect, eaves, upper, eaves + 2.4, bottom=True)
        yield "roof", frustum(upper, eaves + 2.4, ridge_line(upper, along_x=width > depth, hip=1.0), eaves + 3.4)
        top = eaves + 3.2
    elif shape == "hip":
        top = eaves + pitch * min(width, depth) / 2
        line = ridge_line(eaves_rect, along_x=width > depth, hip=min(width, depth) / 2 - 0.2)
        yield "roof", frustum(eaves_rect, eaves, line, top, bottom=True)
    else:
        along_x = shape != "across"
        top = eaves + pitch * (depth if along_x else width) / 2
        yield "roof", frustum(eaves_rect, eaves, ridge_line(eaves_rect, along_x=along_x), top, bottom=True)
        if shape == "wing":
            wing: Rect = (width * 0.55, depth - 0.5, width, depth + 3.4)
            yield "wall", frustum(wing, -FOUNDATION_DEPTH_M, wing, eaves)
            reach = (wing[0] - 0.4, depth / 2, wing[2] + 0.4, wing[3] + 0.4)
            yield (
                "roof",
                frustum(reach, eaves, ridge_line(reach, along_x=False), eaves + 0.5 * (wing[2] - wing[0]) + 0.4),
            )
        if along_x and floors < 3:
            yield from _dormers(width, depth, eaves, pitch, rng)
    x, y = rng.uniform(0.25, 0.75) * width, rng.uniform(0.4, 0.6) * depth
    yield "brick", frustum_box((x, y, eaves), (x + 0.7, y + 0.6, top + 0.7))


def _border(rect: Rect, thick: float) -> list[Rect]:
    x0, y0, x1, y1 = rect
    return [
        (x0, y0, x1, y0 + thick),
        (x0, y1 - thick, x1, y1),
        (x0, y0 + thick, x0 + thick, y1 - thick),
        (x1 - thick, y0 + thick, x1, y1 - thick),
    ]


def _dormers(width: float, depth: float, eaves: float, pitch: float, rng: np.random.Generator) -> Iterator[TownPart]:
    for x in np.linspace(0, width, int(rng.integers(3, 5)))[1:-1]:
        face = 0.8
        low = eaves + 0.5 * pitch
        plan: Rect = (x - 0.6, face, x + 0.6, depth / 2)
        yield "wall", frustum(plan, low, plan, low + 1.3)
        eaves_rect = (x - 0.75, face - 0.2, x + 0.75, depth / 2)
        yield "roof", frustum(eaves_rect, low + 1.3, ridge_line(eaves_rect, along_x=False), low + 2.0, bottom=True)


def church_parts(rng: np.random.Generator) -> Iterator[TownPart]:
    """A nave with buttresses, an apse, and a tower with a spire; about 12 by 24 m, 26 m tall."""
    nave: Rect = (-5.0, -8.0, 5.0, 9.0)
    yield "stone", frustum(nave, -FOUNDATION_DEPTH_M, nave, 8.0)
    eaves_rect = inset_rect(nave, -0.5)
    yield "slate", frustum(eaves_rect, 8.0, ridge_line(eaves_rect, along_x=False), 13.2, bottom=True)
    for y in np.arange(-6.5, 9.0, 3.4):
        for x in (-5.6, 5.0):
            yield "stone", frustum_box((x, y, -FOUNDATION_DEPTH_M), (x + 0.6, y + 0.8, 6.4))
    apse: Rect = (-3.4, 9.0, 3.4, 12.5)
    yield "stone", frustum(apse, -FOUNDATION_DEPTH_M, apse, 6.0)
    yield (
        "slate",
        frustum(
            inset_rect(apse, -0.4), 6.0, ridge_line(inset_rect(apse, 0.2), along_x=True, hip=3.0), 9.0, bottom=True
        ),
    )
    tower: Rect = (-2.8, -12.5, 2.8, -7.0)
    yield "stone", frustum(tower, -FOUNDATION_DEPTH_M, tower, 16.0)
    yield "stone", frustum_box((-3.1, -12.8, 15.2), (3.1, -6.7, 16.2))
    yield "slate", frustum(inset_rect(tower, -0.1), 16.2, (0.0, -9.75, 0.0, -9.75), 26.0)
    for x, y in [(-2.6, -12.3), (1.9, -12.3), (-2.6, -7.9), (1.9, -7.9)]:
        yield "stone", frustum((x, y, x + 0.7, y + 0.7), 16.2, (x + 0.35, y + 0.35) * 2, 18.4)


FOUNTAIN_PROFILE = [
    (2.6, 0.0),
    (2.6, 0.6),
    (2.3, 0.6),
    (2.2, 0.35),
    (0.3, 0.35),
    (0.25, 1.4),
    (1.0, 1.7),
    (0.2, 1.75),
    (0, 2.3),
]


def fountain_parts() -> Iterator[TownPart]:
    yield "stone", revolved_profile(FOUNTAIN_PROFILE, (0, 0, -0.15))


def tree_parts(height: float, rng: np.random.Generator) -> Iterator[TownPart]:
    """A trunk and a crown of four bumpy spheres."""
    yield "bark", revolved_profile([(0.2, -0.5), (0.14, 0.5 * height), (0.0, 0.7 * height)], (0, 0, 0))
    radius = 0.3 * height
    for turn in range(4):
        aside = 0.45 * radius * (turn > 0)
        at = (aside * np.cos(2.1 * turn), aside * np.sin(2.1 * turn), 0.68 * height + rng.uniform(-0.15, 0.2) * height)
        yield "leaves", bumpy_sphere(at, radius * rng.uniform(0.75, 1.0), rng if radius >= 1 else None, bumps=0.12)


def car_parts() -> Iterator[TownPart]:
    """Two boxes with slanted panes, 4.2 m long."""
    body: Rect = (-2.1, -0.85, 2.1, 0.85)
    yield "lacquer", frustum(body, 0.2, inset_rect(body, 0.08), 0.85)
    yield "glass", frustum((-1.4, -0.75, 1.1, 0.75), 0.85, (-0.9, -0.6, 0.6, 0.6), 1.4)


def placed_vertices(mesh: trimesh.Trimesh, at: tuple[float, float, float], yaw: float) -> Float[Array, "v 3"]:
    """Vertices of a mesh turned by ``yaw`` about z and put to ``at``."""
    c, s = np.cos(yaw), np.sin(yaw)
    return mesh.vertices @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + np.array(at)
