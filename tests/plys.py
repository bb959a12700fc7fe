"""A mesh as a PLY file of fuse, in one piece, written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quoin.pipeline.scene.ply import read_ply_header
from quoin.stages.fuse.mesh import Mesh
from quoin.stages.fuse.mesh_files import PlyWriter, open_atomic


def write_ply(path: Path, mesh: Mesh, normals: np.ndarray) -> None:
    edge_m = float(np.median(np.linalg.norm(np.diff(mesh.vertices_world[mesh.faces[:, :2]], axis=1), axis=2)))
    with open_atomic(path) as handle:
        sizes = len(mesh.vertices_world), len(mesh.faces)
        ply = PlyWriter(handle, *sizes, list(mesh.values), edge_m, float(np.abs(mesh.vertices_world).max()))
        ply.vertices(mesh, normals)
        ply.faces(mesh.faces)


def read_ply(path: Path) -> Mesh:
    """A mesh of triangles, with colours and values."""
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
        assert header is not None
        fields = header.fields["vertex"]
        vertices = np.fromfile(handle, fields, header.counts["vertex"])
        faces = np.fromfile(handle, [("count", "u1"), ("corner", "<i4", 3)], header.counts["face"])
    known = {"x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"}
    colors = np.stack([vertices[c] for c in ("red", "green", "blue")], axis=1)
    points = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
    values = {name: vertices[name].copy() for name, _ in fields if name not in known}
    return Mesh(points, faces["corner"].copy(), colors, values)
