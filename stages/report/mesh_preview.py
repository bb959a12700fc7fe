"""The mesh files of a run: read for drawing, and made small enough to travel inside the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.scene.gltf import Glb, glb_bytes, read_glb
from quoin.pipeline.scene.ply import DRAW_LIMIT_FACES, announced_faces, vertex_values

Array = np.ndarray


@dataclass(frozen=True)
class Surface:
    """A triangle mesh with vertex colours in the world frame, the file it came from, and confidence where it tells."""

    vertices_world: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    colors: UInt8[Array, "v 3"]
    file: str
    confidence: Float[Array, "v"] | None = None


def load(ply: Path, glb: Path) -> Surface | None:
    """The finer mesh of the run that is small enough to draw; None where there is none."""
    if ply.exists() and (announced_faces(ply) <= DRAW_LIMIT_FACES or not glb.exists()):
        return _from_ply(ply)
    return _from_glb(glb) if glb.exists() else None


def _from_ply(path: Path) -> Surface | None:
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    if not len(mesh.faces):
        return None
    colors = np.array(mesh.visual.vertex_colors, np.uint8)[:, :3]
    confidence = vertex_values(path, "confidence")
    return Surface(np.array(mesh.vertices, float), np.array(mesh.faces, np.int64), colors, path.name, confidence)


def _from_glb(path: Path) -> Surface | None:
    mesh = read_glb(path.read_bytes())
    if not len(mesh.faces):
        return None
    colors = np.full(mesh.vertices_world.shape, 128, np.uint8) if mesh.colors is None else mesh.colors
    return Surface(mesh.vertices_world, mesh.faces, colors, path.name, mesh.values.get("confidence"))


def embed(path: Path, limit_bytes: int) -> tuple[bytes, int] | None:
    """The glb as bytes of at most ``limit_bytes`` and its face count: the file itself, or decimated until it fits."""
    if not path.exists():
        return None
    data = path.read_bytes()
    mesh = read_glb(data)
    while len(data) > limit_bytes and len(mesh.faces) > 1000:
        mesh = _decimated(mesh, int(len(mesh.faces) * min(0.9 * limit_bytes / len(data), 0.9)))
        data = glb_bytes(mesh)
    return data, len(mesh.faces)


def _decimated(mesh: Glb, n_faces: int) -> Glb:
    """Fewer faces; colours, normals and values are those of the nearest vertex."""
    import fast_simplification
    from scipy.spatial import cKDTree

    middle = mesh.vertices_world.mean(axis=0)
    local = (mesh.vertices_world - middle).astype(np.float32)
    vertices, faces = fast_simplification.simplify(local, mesh.faces.astype(np.int32), target_count=n_faces)
    nearest = cKDTree(local).query(vertices)[1]
    colors = None if mesh.colors is None else mesh.colors[nearest]
    values = {name: value[nearest] for name, value in mesh.values.items()}
    return Glb(vertices + middle, faces.astype(np.int64), mesh.normals[nearest], colors, values)
