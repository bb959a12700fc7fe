"""Reader of a run's mesh files for drawing, and decimation of the mesh for the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES
from quoin.pipeline.scene.gltf import GltfMesh, decode_glb, encode_glb
from quoin.pipeline.scene.ply import count_faces, read_vertex_property

Array = np.ndarray


@dataclass(frozen=True)
class PreviewMesh:
    """A triangle mesh in the world frame with vertex colours, its file, and its confidence if it has one."""

    vertices_world: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    colors: UInt8[Array, "v 3"]
    file: str
    confidence: Float[Array, "v"] | None = None


def load_preview_mesh(ply: Path, glb: Path) -> PreviewMesh | None:
    """The finer mesh of the run that is small enough to draw; None where there is none."""
    if ply.exists() and (count_faces(ply) <= MAX_RAYCAST_FACES or not glb.exists()):
        return _from_ply(ply)
    return _from_glb(glb) if glb.exists() else None


def _from_ply(path: Path) -> PreviewMesh | None:
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    if not len(mesh.faces):
        return None
    colors = np.array(mesh.visual.vertex_colors, np.uint8)[:, :3]
    confidence = read_vertex_property(path, "confidence")
    return PreviewMesh(np.array(mesh.vertices, float), np.array(mesh.faces, np.int64), colors, path.name, confidence)


def _from_glb(path: Path) -> PreviewMesh | None:
    mesh = decode_glb(path.read_bytes())
    if not len(mesh.faces):
        return None
    colors = np.full(mesh.vertices_world.shape, 128, np.uint8) if mesh.colors is None else mesh.colors
    return PreviewMesh(mesh.vertices_world, mesh.faces, colors, path.name, mesh.values.get("confidence"))


def embed_glb(path: Path, limit_bytes: int) -> tuple[bytes, int] | None:
    """The glb as bytes of at most ``limit_bytes`` and its face count: the file itself, or decimated until it fits."""
    if not path.exists():
        return None
    data = path.read_bytes()
    mesh = decode_glb(data)
    while len(data) > limit_bytes and len(mesh.faces) > 1000:
        mesh = _decimate(mesh, int(len(mesh.faces) * min(0.9 * limit_bytes / len(data), 0.9)))
        data = encode_glb(mesh)
    return data, len(mesh.faces)


def _decimate(mesh: GltfMesh, n_faces: int) -> GltfMesh:
    """Fewer faces; colours, normals and values are those of the nearest vertex."""
    import fast_simplification
    from scipy.spatial import cKDTree

    center = mesh.vertices_world.mean(axis=0)
    local = (mesh.vertices_world - center).astype(np.float32)
    vertices, faces = fast_simplification.simplify(local, mesh.faces.astype(np.int32), target_count=n_faces)
    nearest = cKDTree(local).query(vertices)[1]
    colors = None if mesh.colors is None else mesh.colors[nearest]
    values = {name: value[nearest] for name, value in mesh.values.items()}
    return GltfMesh(vertices + center, faces.astype(np.int64), mesh.normals[nearest], colors, values)
