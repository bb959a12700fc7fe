"""The mesh files of a run: read for drawing, and made small enough to travel inside the page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipeline.ply import DRAW_LIMIT_FACES, announced_faces, vertex_values

if TYPE_CHECKING:
    import trimesh

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
        return _read(ply)
    return _read(glb) if glb.exists() else None


def _read(path: Path) -> Surface | None:
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    if not len(mesh.faces):
        return None
    vertices, colors = np.array(mesh.vertices, float), _colors(mesh)[:, :3]
    if path.suffix == ".glb":  # glTF is y up and its colours are linear light
        vertices = vertices[:, [0, 2, 1]] * [1.0, -1.0, 1.0]
        colors = srgb_from_linear(colors)
        confidence = mesh.vertex_attributes.get("_CONFIDENCE")
        confidence = None if confidence is None else np.array(confidence, np.float32).reshape(-1)
    else:
        confidence = vertex_values(path, "confidence")
    return Surface(vertices, np.array(mesh.faces, np.int64), colors, path.name, confidence)


def srgb_from_linear(colors: UInt8[Array, "v 3"]) -> UInt8[Array, "v 3"]:
    """8-bit sRGB of 8-bit linear light (IEC 61966-2-1)."""
    x = np.arange(256) / 255.0
    curve = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)[colors]


def _colors(mesh: trimesh.Trimesh) -> UInt8[Array, "v 4"]:
    visual = mesh.visual.to_color() if mesh.visual.kind == "texture" else mesh.visual
    return np.array(visual.vertex_colors, np.uint8)


def embed(path: Path, limit_bytes: int) -> tuple[bytes, int] | None:
    """The glb as bytes of at most ``limit_bytes`` and its face count: the file itself, or decimated until it fits."""
    if not path.exists():
        return None
    import trimesh

    data, mesh = path.read_bytes(), trimesh.load_mesh(path, process=False)
    while len(data) > limit_bytes and len(mesh.faces) > 1000:
        share = min(0.9 * limit_bytes / len(data), 0.9)
        mesh = _decimate(mesh, int(len(mesh.faces) * share))
        buffer = io.BytesIO()
        mesh.export(buffer, file_type="glb")
        data = buffer.getvalue()
    return data, len(mesh.faces)


def _decimate(mesh: trimesh.Trimesh, n_faces: int) -> trimesh.Trimesh:
    import fast_simplification
    import trimesh
    from scipy.spatial import cKDTree

    vertices, faces = fast_simplification.simplify(
        np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32), target_count=n_faces
    )
    nearest = cKDTree(mesh.vertices).query(vertices)[1]
    return trimesh.Trimesh(vertices, faces, vertex_colors=_colors(mesh)[nearest], process=False)
