"""Triangle meshes with vertex colors: submeshes, edges, clustering and decimation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.geometry.mesh import face_areas, vertex_normals

Array = np.ndarray


@dataclass(frozen=True)
class Mesh:
    """Vertices in the world (float64, meters), triangles counter-clockwise seen from outside, colors (sRGB).

    ``values`` are further attributes of the vertices by name (``confidence``: see ``vertex_confidence.py``).
    """

    vertices_world: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    colors: UInt8[Array, "v 3"] | None = None
    values: dict[str, Float[Array, "v"]] = field(default_factory=dict)

    def submesh(self, keep: Bool[Array, "f"]) -> Mesh:
        """The mesh of the faces where ``keep``, and the vertices they use."""
        faces = self.faces[keep]
        used = np.zeros(len(self.vertices_world), bool)
        used[faces] = True
        number = np.cumsum(used) - 1
        return Mesh(
            self.vertices_world[used],
            number[faces].astype(self.faces.dtype),
            None if self.colors is None else self.colors[used],
            {name: value[used] for name, value in self.values.items()},
        )

    def face_areas(self) -> Float[Array, "f"]:
        """Area of every face, square meters."""
        return face_areas(self.vertices_world, self.faces)

    def vertex_normals(self) -> Float[Array, "v 3"]:
        """Unit normals (float32), weighted by face area; zero for a vertex without faces."""
        return vertex_normals(self.vertices_world, self.faces).astype(np.float32)


def used_vertices(faces: Int[Array, "f 3"], n_vertices: int) -> Int[Array, "k"]:
    """Indices of the vertices that faces use."""
    used = np.zeros(n_vertices, bool)
    used[faces] = True
    return np.flatnonzero(used)


def edge_counts(faces: Int[Array, "f 3"]) -> tuple[Int[Array, "e 2"], Int[Array, "e"]]:
    """Every edge once (lower vertex first), and its number of faces: 1 on a boundary, 2 inside."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    key = (ends.min(axis=1) << 32) | ends.max(axis=1)
    key, count = np.unique(key, return_counts=True)
    return np.stack([key >> 32, key & 0xFFFFFFFF], axis=1), count


@dataclass
class VertexClustering:
    """Simplification of a mesh that comes in chunks: vertices in a cell of a cubic grid are merged (Rossignac 1993).

    ``add`` takes a chunk; ``mesh`` returns the mean vertices. Chunks fit together, since all share the grid.
    """

    cell_m: float
    sums: list[tuple[Int[Array, "n 3"], Float[Array, "n k"]]] = field(default_factory=list)
    corners: list[Int[Array, "f 3 3"]] = field(default_factory=list)

    def add(self, mesh: Mesh, new: Bool[Array, "v"]) -> None:
        """Add a colored chunk; vertices that are not ``new`` were in an earlier one."""
        assert mesh.colors is not None
        cell = np.floor(mesh.vertices_world / self.cell_m).astype(np.int64)
        attributes = [mesh.vertices_world, mesh.colors, *(value[:, None] for value in mesh.values.values())]
        rows = np.concatenate([np.ones((len(cell), 1)), *attributes], axis=1)
        cells, number = np.unique(cell[new], axis=0, return_inverse=True)
        total = np.zeros((len(cells), rows.shape[1]))
        np.add.at(total, number, rows[new])
        self.sums.append((cells, total))
        corners = cell[mesh.faces]
        apart = [(corners[:, a] != corners[:, b]).any(axis=1) for a, b in ((0, 1), (1, 2), (2, 0))]
        self.corners.append(np.unique(corners[np.all(apart, axis=0)], axis=0))

    def mesh(self, values: Sequence[str]) -> Mesh:
        """The simplified mesh of all chunks; ``values`` are the names of their attributes, in order."""
        cells, number = np.unique(np.concatenate([c for c, _ in self.sums]), axis=0, return_inverse=True)
        total = np.zeros((len(cells), self.sums[0][1].shape[1]))
        np.add.at(total, number, np.concatenate([t for _, t in self.sums]))
        mean = total[:, 1:] / total[:, :1]
        shape = tuple((np.ptp(cells, axis=0) + 1).tolist())
        codes = np.ravel_multi_index(tuple((cells - cells.min(axis=0)).T), shape)  # sorted, as cells are
        corners = np.concatenate(self.corners).reshape(-1, 3) - cells.min(axis=0)
        faces = np.searchsorted(codes, np.ravel_multi_index(tuple(corners.T), shape)).reshape(-1, 3)
        colors = np.rint(mean[:, 3:6]).clip(0, 255).astype(np.uint8)
        kept = {name: mean[:, 6 + k].astype(np.float32) for k, name in enumerate(values)}
        return Mesh(mean[:, :3], np.unique(faces, axis=0), colors, kept)


def decimate(mesh: Mesh, max_faces: int) -> Mesh:
    """The mesh simplified to at most ``max_faces`` faces by quadric error (Garland & Heckbert 1997).

    Colors and values are those of the nearest vertices before.
    """
    import fast_simplification
    from scipy.spatial import cKDTree

    if len(mesh.faces) <= max_faces:
        return mesh
    middle = mesh.vertices_world.mean(axis=0)
    local = (mesh.vertices_world - middle).astype(np.float32)
    points, faces = local, mesh.faces.astype(np.int32)
    while len(faces) > max_faces:  # the library may stop early: repeat with a larger reduction
        before = len(faces)
        share = 1.0 - max_faces / before
        points, faces = fast_simplification.simplify(points, faces, target_reduction=min(share * 1.001, 0.9999))
        if len(faces) == before:
            break
    nearest = cKDTree(local).query(points)[1]
    colors = None if mesh.colors is None else mesh.colors[nearest]
    values = {name: value[nearest] for name, value in mesh.values.items()}
    return Mesh(points.astype(np.float64) + middle, faces, colors, values)
