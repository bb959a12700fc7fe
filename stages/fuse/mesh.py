"""Triangle meshes with vertex colors: submeshes, edges, clustering, decimation, and their files.

PLY holds the full surface, binary glTF the light one; both are written aside, then put in place in one move.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.geometry.mesh import face_areas, vertex_normals
from quoin.pipeline.scene.mesh_formats import GltfMesh, encode_glb
from quoin.pipeline.storage.disk import atomic_path

Array = np.ndarray

# Beyond this many float32 steps per smallest edge, a world coordinate needs float64 in the PLY file.
MIN_FLOAT32_STEPS = 64.0
MAX_COMMENTS = 100  # of a PLY header: readers refuse those that are too long
_PLY_TYPE = {"<f4": "float", "<f8": "double", "u1": "uchar"}


@dataclass(frozen=True)
class Mesh:
    """Vertices in the world (float64, meters), triangles counter-clockwise seen from outside, colors (sRGB).

    ``values`` are further attributes of the vertices by name (``confidence``: see ``vertex_attributes.py``).
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


# -- files -------------------------------------------------------------------------------------------------------------


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which replaces ``path`` only once all of it is on the disk."""
    with atomic_path(path) as part, open(part, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


def ply_coordinate_type(edge_m: float, max_coordinate_m: float) -> str:
    """Numpy type of coordinates in a PLY file: float32, or float64 where that is too coarse.

    Float32 must resolve an edge of ``edge_m`` in MIN_FLOAT32_STEPS steps, ``max_coordinate_m`` from the origin.
    """
    step_m = float(np.spacing(np.float32(max_coordinate_m)))
    return "<f4" if edge_m >= MIN_FLOAT32_STEPS * step_m else "<f8"


class PlyWriter:
    """Writer of a binary little-endian PLY in world coordinates, of a mesh of known size that comes in chunks.

    Vertices have positions of ``coordinate_type`` (``ply_coordinate_type``), normals, colors, float ``values``;
    ``comments`` are ASCII lines of the header.
    """

    def __init__(
        self,
        handle: IO[bytes],
        n_vertices: int,
        n_faces: int,
        values: Sequence[str],
        coordinate_type: str,
        comments: Sequence[str] = (),
    ) -> None:
        fields = [(name, coordinate_type) for name in "xyz"]
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        fields += [(name, "<f4") for name in values]
        header = ["ply", "format binary_little_endian 1.0", "comment made by quoin"]
        header += [f"comment {text}" for text in comments[:MAX_COMMENTS]]
        header += [f"element vertex {n_vertices}"]
        header += [f"property {_PLY_TYPE[kind]} {name}" for name, kind in fields]
        header += [f"element face {n_faces}", "property list uchar int vertex_indices", "end_header"]
        handle.write(("\n".join(header) + "\n").encode("ascii"))
        self._handle, self._vertex = handle, np.dtype(fields)

    def vertices(self, mesh: Mesh, normals: Float[Array, "n 3"], new: Bool[Array, "n"] | None = None) -> None:
        """Write the vertices of a chunk, or those of them that are ``new``."""
        chosen = np.ones(len(normals), bool) if new is None else new
        rows = np.empty(int(chosen.sum()), self._vertex)
        for axis in range(3):
            rows["xyz"[axis]] = mesh.vertices_world[chosen, axis]
            rows[f"n{'xyz'[axis]}"] = normals[chosen, axis]
            if mesh.colors is not None:
                rows[("red", "green", "blue")[axis]] = mesh.colors[chosen, axis]
        for name, value in mesh.values.items():
            rows[name] = value[chosen]
        self._handle.write(rows.view(np.uint8).data)  # tofile does not report a full disk

    def faces(self, faces: Int[Array, "n 3"]) -> None:
        """Write faces, by the indices of vertices in the file; after all vertices."""
        rows = np.empty(len(faces), [("count", "u1"), ("corner", "<i4", 3)])
        rows["count"], rows["corner"] = 3, faces
        self._handle.write(rows.view(np.uint8).data)


def write_glb(path: Path, mesh: Mesh, normals: Float[Array, "v 3"]) -> None:
    """Write the mesh as binary glTF (``pipeline.scene.mesh_formats``)."""
    whole = GltfMesh(mesh.vertices_world, mesh.faces, normals, mesh.colors, mesh.values)
    with open_atomic(path) as handle:
        handle.write(encode_glb(whole))
