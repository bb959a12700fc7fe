"""Mesh files: PLY for the full surface, binary glTF for the light one. Written aside, then put in place in one move."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.scene.gltf import GltfMesh, encode_glb
from quoin.pipeline.storage.atomic import atomic_path
from quoin.stages.fuse.mesh import Mesh

Array = np.ndarray

# Beyond this many float32 steps per smallest edge, a world coordinate needs float64 in the PLY file.
MIN_FLOAT32_STEPS = 64.0


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which replaces ``path`` only once all of it is on the disk."""
    with atomic_path(path) as part, open(part, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


MAX_COMMENTS = 100  # readers refuse headers that are too long
_PLY_TYPE = {"<f4": "float", "<f8": "double", "u1": "uchar"}


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
        header = ["ply", "format binary_little_endian 1.0", "comment made by quoin; world frame, metres, z up"]
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
    """Write the mesh as binary glTF (``pipeline.scene.gltf``)."""
    whole = GltfMesh(mesh.vertices_world, mesh.faces, normals, mesh.colors, mesh.values)
    with open_atomic(path) as handle:
        handle.write(encode_glb(whole))
