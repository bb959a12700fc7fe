"""Scenes as triangles of known materials, and the shapes they are built from.

Boxes, revolved profiles, spheres, reliefs, voxels. Metres, z up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int

Array = np.ndarray

Point3 = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Triangles, each of a material (index into the scene's list of materials).

    Those not ``is_in_region`` are backdrop and are not scored.
    """

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    material: Int[Array, "f"]
    is_in_region: Bool[Array, "f"]
    region_low_m: Point3
    region_high_m: Point3
    label: Int[Array, "f"] | None = None  # FLOOR, CEILING, WALL or OTHER of pipeline/imaging/labels.py
    # of the walls' normals, from x to y, in [0, 180); empty where walls have no main directions
    wall_yaws_deg: tuple[float, ...] = ()


CELL_EDGE_M = 0.09  # size of faces, as visibility is decided face by face


def grid_box(low: Point3, high: Point3) -> trimesh.Trimesh:
    """An axis-aligned box from corner to corner, its sides in square cells."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    sides = [
        (panel_matrix((x0, y0, z1), (1, 0, 0), (0, 1, 0)), (x1 - x0, y1 - y0)),
        (panel_matrix((x0, y1, z0), (1, 0, 0), (0, -1, 0)), (x1 - x0, y1 - y0)),
        (panel_matrix((x0, y0, z0), (1, 0, 0), (0, 0, 1)), (x1 - x0, z1 - z0)),
        (panel_matrix((x1, y1, z0), (-1, 0, 0), (0, 0, 1)), (x1 - x0, z1 - z0)),
        (panel_matrix((x1, y0, z0), (0, 1, 0), (0, 0, 1)), (y1 - y0, z1 - z0)),
        (panel_matrix((x0, y1, z0), (0, -1, 0), (0, 0, 1)), (y1 - y0, z1 - z0)),
    ]
    return trimesh.util.concatenate(
        [relief_panel(size, lambda u, v: 0 * u, matrix, cell=CELL_EDGE_M) for matrix, size in sides]
    )


def revolved_profile(
    profile: Sequence[tuple[float, float]], at: Point3, *, flutes: int = 0, depth: float = 0.12
) -> trimesh.Trimesh:
    """The surface of revolution of a profile of (radius, height) points about the vertical through ``at``.

    ``flutes`` grooves are cut into it, ``depth`` of the radius deep.
    """
    knots = np.array(profile)
    lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    steps = np.concatenate([np.linspace(a, b, max(2, int((b - a) / CELL_EDGE_M) + 2)) for a, b in pairwise(along)])
    radius, height = (np.interp(np.unique(steps), along, values) for values in knots.T)
    segments = 6 * flutes if flutes else int(np.clip(2 * np.pi * radius.max() / CELL_EDGE_M, 20, 90))
    angle = np.arange(segments) * 2 * np.pi / segments
    groove = 1 - depth * (0.5 + 0.5 * np.cos(flutes * angle)) if flutes else np.ones(segments)
    rings = radius[:, None] * groove
    vertices = np.stack([rings * np.cos(angle), rings * np.sin(angle), np.repeat(height[:, None], segments, 1)], -1)
    row = np.arange(segments)
    lower, upper = row, row + segments
    quad = np.stack([lower, np.roll(lower, -1), np.roll(upper, -1), upper], -1)
    quads = (quad + segments * np.arange(len(radius) - 1)[:, None, None]).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    mesh = trimesh.Trimesh(vertices.reshape(-1, 3) + at, faces, process=False)
    mesh.update_faces(mesh.area_faces > 1e-9)
    return mesh


def bumpy_sphere(
    at: Point3, radius: float, rng: np.random.Generator | None = None, *, squash: float = 1.0, bumps: float = 0.1
) -> trimesh.Trimesh:
    """A sphere; with ``rng`` a bumpy one, whose bumps are ``bumps`` of the radius high (foliage, rocks)."""
    mesh = trimesh.creation.icosphere(subdivisions=4 if rng is not None and radius < 1 else 3)
    vertices = np.array(mesh.vertices)
    if rng is not None:
        waves = rng.normal(size=(24, 3)) * np.linspace(1.5, 6.0, 24)[:, None]
        vertices *= 1 + bumps * np.sin(vertices @ waves.T + rng.uniform(0, 6.3, 24)).sum(1, keepdims=True) / 3
    return trimesh.Trimesh(vertices * radius * np.array([1, 1, squash]) + at, mesh.faces, process=False)


def relief_panel(
    size: tuple[float, float],
    recess_m: Callable[[Float[Array, "a b"], Float[Array, "a b"]], Float[Array, "a b"]],
    matrix: Float[Array, "4 4"],
    cell: float = 0.04,
) -> trimesh.Trimesh:
    """A panel 0..width by 0..height, sunk by ``recess_m(u, v)``; ``matrix`` places it, its +z is outwards."""
    counts = [max(2, round(s / cell) + 1) for s in size]
    u, v = np.meshgrid(*[np.linspace(0, s, n) for s, n in zip(size, counts, strict=True)], indexing="ij")
    vertices = np.stack([u, v, -recess_m(u, v)], -1).reshape(-1, 3)
    mesh = trimesh.Trimesh(vertices, grid_faces(*counts), process=False)
    mesh.apply_transform(matrix)
    return mesh


def grid_faces(rows: int, columns: int) -> Int[Array, "f 3"]:
    """Triangles [2 (rows-1)(columns-1), 3] of a grid of vertices in C order, facing row axis x column axis."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def panel_matrix(at: Point3, u_axis: Point3, v_axis: Point3) -> Float[Array, "4 4"]:
    """Matrix that puts a panel's corner at ``at`` with its width and height along two axes."""
    u, v = (np.array(axis) / np.linalg.norm(axis) for axis in (u_axis, v_axis))
    out = np.eye(4)
    out[:3] = np.stack([u, v, np.cross(u, v), at], axis=1)
    return out


def niche(u: Array, v: Array, center_u: float, sill: float, spring: float, radius: float) -> Array:
    """Recess in metres of a round-headed niche: half a cylinder from ``sill`` to ``spring``, a quarter ball above."""
    above = np.maximum(v - spring, 0.0)
    depth = np.sqrt(np.maximum(radius**2 - (u - center_u) ** 2 - above**2, 0.0))
    return np.where(v >= sill, depth, 0.0)


def subdivided(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The same surface in triangles with no edge much longer than a cell's diagonal."""
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, 1.5 * CELL_EDGE_M, max_iter=14)
    return trimesh.Trimesh(vertices, faces, process=False)


def grid_lines(breaks: Sequence[float], cell: float = CELL_EDGE_M) -> Float[Array, "n"]:
    """Sorted coordinates: every break, and between two of them steps of ``cell`` at most."""
    ends = sorted(set(breaks))
    steps = [np.linspace(a, b, int(np.ceil((b - a) / cell - 1e-9)) + 1) for a, b in pairwise(ends)]
    return np.unique(np.concatenate(steps))


def voxel_surface(
    xs: Float[Array, "a"],
    ys: Float[Array, "b"],
    zs: Float[Array, "c"],
    solid: Bool[Array, "x y z"],
    *,
    is_outside_solid: bool,
) -> trimesh.Trimesh:
    """The surface between solid and empty cells of a grid of lines, facing the empty ones.

    ``is_outside_solid``: what lies outside the grid counts as solid.

    Only faces of one direction share vertices, so that corners are sharp. Merged, the surface is closed.
    """
    filled = np.pad(solid, 1, constant_values=is_outside_solid).astype(np.int8)
    vertices: list[Array] = []
    faces: list[Array] = []
    for axis in range(3):
        change = np.diff(filled, axis=axis)
        first_axis, second_axis = np.eye(3, dtype=np.int64)[[(axis + 1) % 3, (axis + 2) % 3]]
        for sign in (1, -1):
            at = np.argwhere(change == -sign) - first_axis - second_axis
            ring = (
                (0 * first_axis, first_axis, first_axis + second_axis, second_axis)
                if sign > 0
                else (0 * first_axis, second_axis, first_axis + second_axis, first_axis)
            )
            corners = np.stack([at + step for step in ring], axis=1).reshape(-1, 3)
            number = np.ravel_multi_index(tuple(corners.T), filled.shape)
            used, index = np.unique(number, return_inverse=True)
            quads = index.reshape(-1, 4) + sum(len(part) for part in vertices)
            faces.append(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
            i, j, k = np.unravel_index(used, filled.shape)
            vertices.append(np.stack([xs[i], ys[j], zs[k]], axis=1))
    return trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)


def closed_box(low: Point3, high: Point3) -> trimesh.Trimesh:
    """An axis-aligned box, closed once its vertices are merged (``voxel_surface``)."""
    xs, ys, zs = (grid_lines(ends) for ends in zip(low, high, strict=True))
    return voxel_surface(xs, ys, zs, np.ones((len(xs) - 1, len(ys) - 1, len(zs) - 1), bool), is_outside_solid=False)


def rounded_box(low: Point3, high: Point3, radius: float) -> trimesh.Trimesh:
    """A box whose edges and corners are rounded by ``radius``, at most half its shortest side."""
    bend = radius * (1 - np.tan(np.linspace(0, np.pi / 4, 7)))  # equal angles along the bend
    grid = []
    for a, b in zip(low, high, strict=True):
        flat = grid_lines([a + radius, b - radius]) if b - a > 2 * radius + 1e-6 else np.array([(a + b) / 2])
        grid.append(np.unique(np.round(np.concatenate([a + bend, flat, b - bend]), 9)))
    xs, ys, zs = grid
    mesh = voxel_surface(xs, ys, zs, np.ones((len(xs) - 1, len(ys) - 1, len(zs) - 1), bool), is_outside_solid=False)
    core = np.clip(mesh.vertices, np.array(low) + radius, np.array(high) - radius)
    offset = mesh.vertices - core
    offset *= radius / np.linalg.norm(offset, axis=1, keepdims=True)
    mesh = trimesh.Trimesh(core + offset, mesh.faces, process=False)
    mesh.merge_vertices(digits_vertex=7)
    return mesh


def hollow_prism(outline: Float[Array, "n 2"], height: float) -> list[trimesh.Trimesh]:
    """A hollow prism over a convex outline about the origin, counter-clockwise: floor, ceiling, a wall per side.

    All face inwards, and meet vertex on vertex.
    """
    ends = np.roll(outline, -1, axis=0)
    counts = [max(2, round(float(np.linalg.norm(b - a)) / CELL_EDGE_M) + 1) for a, b in zip(outline, ends, strict=True)]
    walls = [
        relief_panel(
            (float(np.linalg.norm(b - a)), height),
            lambda u, v: 0 * u,
            panel_matrix((float(b[0]), float(b[1]), 0.0), (float((a - b)[0]), float((a - b)[1]), 0.0), (0, 0, 1)),
            cell=CELL_EDGE_M,
        )
        for a, b in zip(outline, ends, strict=True)
    ]
    sides = zip(outline, ends, counts, strict=True)
    border = np.concatenate([np.linspace(a, b, n)[:-1] for a, b, n in sides])
    shares = np.linspace(1, 0, round(float(np.linalg.norm(border, axis=1).max()) / CELL_EDGE_M) + 1)
    closed = np.concatenate([border, border[:1]])
    level = (shares[:, None, None] * closed).reshape(-1, 2)
    inwards = grid_faces(len(shares), len(closed))
    ends_z = []
    for z, faces in ((0.0, inwards[:, ::-1]), (height, inwards)):
        mesh = trimesh.Trimesh(np.column_stack([level, np.full(len(level), z)]), faces, process=False)
        mesh.merge_vertices(digits_vertex=7)
        mesh.update_faces(mesh.area_faces > 1e-9)
        ends_z.append(mesh)
    return [*ends_z, *walls]
