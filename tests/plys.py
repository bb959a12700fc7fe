"""A mesh as a PLY file of fuse, in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.fuse.files import PlyWriter, replacing
from stages.fuse.mesh import Mesh


def write_ply(path: Path, mesh: Mesh, normals: np.ndarray) -> None:
    edge_m = float(np.median(np.linalg.norm(np.diff(mesh.vertices_world[mesh.faces[:, :2]], axis=1), axis=2)))
    with replacing(path) as handle:
        sizes = len(mesh.vertices_world), len(mesh.faces)
        ply = PlyWriter(handle, *sizes, list(mesh.values), edge_m, float(np.abs(mesh.vertices_world).max()))
        ply.vertices(mesh, normals)
        ply.faces(mesh.faces)
