"""Marching cubes (Lorensen & Cline 1987) with vertices keyed by lattice edge, so that welding is exact.

The 256 cases are derived here, not copied: on every face of a cell the crossed edges are joined so that inside corners
stay apart. That rule looks at the face alone, so the two cells that share it agree and the surface closes; loops are
then cut into triangles without a diagonal inside a cell face where that is possible, so no edge gets a third triangle.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray

CUBE_CORNERS = np.array(list(product((0, 1), repeat=3)))  # corner 4x + 2y + z of a cell
CUBE_EDGES = [
    (axis, corner) for axis in range(3) for corner in range(8) if not CUBE_CORNERS[corner][axis]
]  # axis, low corner
EDGE_AXIS = np.array([axis for axis, _ in CUBE_EDGES])
EDGE_LOW = CUBE_CORNERS[[corner for _, corner in CUBE_EDGES]]

# Vertices keep this share of an edge clear of its ends: two vertices never coincide, no triangle is a needle.
MIN_EDGE_FRACTION = 0.01


def _corner(axis: int, side: int, u: int, v: int) -> int:
    place = [0, 0, 0]
    place[axis], place[(axis + 1) % 3], place[(axis + 2) % 3] = side, u, v
    return 4 * place[0] + 2 * place[1] + place[2]


def _faces() -> list[list[int]]:
    """The corners of each cell face, counter-clockwise seen from outside the cell."""
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    turns = [square[::-1], square]
    return [[_corner(axis, side, u, v) for u, v in turns[side]] for axis in range(3) for side in (0, 1)]


def _edge_between(a: int, b: int) -> int:
    axis = {4: 0, 2: 1, 1: 2}[a ^ b]
    return CUBE_EDGES.index((axis, min(a, b)))


def _loops(case: int) -> list[list[int]]:
    """Closed loops of crossed edges of a cell; bit c of ``case`` says that corner c is inside."""
    follow: dict[int, int] = {}
    for face in _faces():
        for start in range(4):
            ring = face[start:] + face[:start]
            if case >> ring[0] & 1 or not case >> ring[1] & 1:
                continue
            last = next(i for i in range(1, 4) if not case >> ring[(i + 1) % 4] & 1)
            follow[_edge_between(ring[0], ring[1])] = _edge_between(ring[last], ring[(last + 1) % 4])
    loops = []
    while follow:
        loop = [next(iter(follow))]
        while follow[loop[-1]] != loop[0]:
            loop.append(follow.pop(loop[-1]))
        follow.pop(loop[-1])
        loops.append(loop)
    return loops


def _triangulate(loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles of a loop of edges with the fewest diagonals that lie in a face of the cell."""
    ends = [{CUBE_EDGES[e][1], CUBE_EDGES[e][1] | (4 >> CUBE_EDGES[e][0])} for e in loop]
    on_faces = [{i for i, face in enumerate(_faces()) if pair <= set(face)} for pair in ends]

    @functools.cache
    def best(first: int, last: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
        if last - first < 2:
            return 0, ()
        choices = []
        for middle in range(first + 1, last):
            (cost_a, tris_a), (cost_b, tris_b) = best(first, middle), best(middle, last)
            flat = sum(b - a > 1 and bool(on_faces[a] & on_faces[b]) for a, b in ((first, middle), (middle, last)))
            choices.append((cost_a + cost_b + flat, (*tris_a, *tris_b, (loop[first], loop[middle], loop[last]))))
        return min(choices, key=lambda choice: choice[0])

    return list(best(0, len(loop) - 1)[1])


@functools.cache
def triangle_table() -> tuple[Int[Array, "256 t 3"], Int[Array, "256"]]:
    """Edges of the triangles of every case (padded with -1), and how many triangles each case has."""
    rows = [[t for loop in _loops(case) for t in _triangulate(loop)] for case in range(256)]
    table = np.full((256, max(map(len, rows)), 3), -1, np.int64)
    for case, triangles in enumerate(rows):
        if triangles:
            table[case, : len(triangles)] = triangles
    return table, np.array([len(row) for row in rows])


@dataclass(frozen=True)
class EdgeKeys:
    """One int64 per lattice edge: samples ``low .. low + shape - 1`` in C order, times 3, plus the edge's axis."""

    low: tuple[int, int, int]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if 3 * int(self.shape[0]) * int(self.shape[1]) * int(self.shape[2]) >= 2**63:
            raise OverflowError(f"a lattice of {self.shape} samples has more edges than int64 can number")

    def encode(self, samples: Int[Array, "n 3"], axis: Int[Array, "n"]) -> Int[Array, "n"]:
        """Keys of the edges that start at ``samples`` and run along ``axis``."""
        i, j, k = (np.asarray(samples, np.int64) - np.array(self.low)).T
        return ((i * self.shape[1] + j) * self.shape[2] + k) * 3 + axis

    def decode(self, keys: Int[Array, "n"]) -> tuple[Int[Array, "n 3"], Int[Array, "n"]]:
        """The sample each edge starts at, and its axis."""
        cell, axis = np.divmod(keys, 3)
        rest, k = np.divmod(cell, self.shape[2])
        i, j = np.divmod(rest, self.shape[1])
        return np.stack([i, j, k], axis=1) + np.array(self.low), axis


@dataclass(frozen=True)
class Patch:
    """Surface of some bricks: vertex i lies ``fractions[i]`` along lattice edge ``keys[i]``; faces index vertices."""

    keys: Int[Array, "v"]
    fractions: Float[Array, "v"]
    faces: Int[Array, "f 3"]

    @classmethod
    def empty(cls) -> Patch:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 3), np.int64))


def marching_cubes(sdf_voxels: Float[Array, "x y z"], low_sample: Int[Array, "3"], edge_keys: EdgeKeys) -> Patch:
    """The zero surface of the cells between samples [x, y, z], the first of them at lattice index ``low_sample``.

    Negative is inside (zero is outside); triangles are counter-clockwise seen from outside. Vertices depend on the two
    samples of their edge alone, so neighbouring bricks that agree on shared samples agree on shared vertices.
    """
    inside = sdf_voxels < 0
    cells = tuple(n - 1 for n in inside.shape)
    case = np.zeros(cells, np.uint8)
    for bit, (dx, dy, dz) in enumerate(CUBE_CORNERS):
        case |= inside[dx : dx + cells[0], dy : dy + cells[1], dz : dz + cells[2]].astype(np.uint8) << np.uint8(bit)
    table, count = triangle_table()
    at = np.argwhere(count[case] > 0)
    if len(at) == 0:
        return Patch.empty()
    edges = table[case[tuple(at.T)]]
    row, slot = np.nonzero(edges[:, :, 0] >= 0)
    edges = edges[row, slot].ravel()
    samples = np.repeat(at[row], 3, axis=0) + EDGE_LOW[edges] + low_sample
    keys, corner = np.unique(edge_keys.encode(samples, EDGE_AXIS[edges]), return_inverse=True)
    start, axis = edge_keys.decode(keys)
    end = start.copy()
    end[np.arange(len(end)), axis] += 1
    a, b = (sdf_voxels[tuple((s - low_sample).T)].astype(np.float64) for s in (start, end))
    fractions = np.clip(a / (a - b), MIN_EDGE_FRACTION, 1 - MIN_EDGE_FRACTION).astype(np.float32)
    return Patch(keys, fractions, corner.reshape(-1, 3))


def weld(patches: list[Patch]) -> Patch:
    """One patch from many: vertices with equal keys become one, in key order."""
    if not patches:
        return Patch.empty()
    keys, first, where = np.unique(np.concatenate([p.keys for p in patches]), return_index=True, return_inverse=True)
    starts = np.cumsum([0] + [len(p.keys) for p in patches[:-1]])
    faces = [where[p.faces + start] for p, start in zip(patches, starts, strict=True)]
    return Patch(keys, np.concatenate([p.fractions for p in patches])[first], np.concatenate(faces).reshape(-1, 3))


def positions_voxels(patch: Patch, edge_keys: EdgeKeys) -> Float[Array, "v 3"]:
    """Vertices in continuous lattice coordinates (samples), float64."""
    start, axis = edge_keys.decode(patch.keys)
    out = start.astype(np.float64)
    out[np.arange(len(out)), axis] += patch.fractions
    return out
