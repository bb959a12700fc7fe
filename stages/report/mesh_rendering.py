"""The mesh on the page: read from the run's files, decimated until it fits, and drawn as a camera sees it.

It is drawn by casting rays (Open3D's Embree scene, which needs no display).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import normalize, rays_world
from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES
from quoin.pipeline.scene.mesh_formats import GltfMesh, confidence_colors, decode_glb, encode_glb
from quoin.pipeline.scene.ply_format import count_faces, read_ply_surface, read_vertex_property
from quoin.pipeline.storage.layout import damaged_file_error

Array = np.ndarray

MESH_ALBEDO = 0.78  # albedo of the plain picture
BACKGROUND_RGB = (236, 237, 239)


# -- reading and decimation --------------------------------------------------------------------------------------------


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
    try:
        surface = read_ply_surface(path)
    except QuoinError as error:
        raise damaged_file_error("mesh.ply", error.what) from error
    vertices, faces = surface.vertices, surface.triangles
    if not len(faces):
        return None
    colors = np.full(vertices.shape, 128, np.uint8)
    for channel, name in enumerate(("red", "green", "blue")):
        if (values := read_vertex_property(path, name)) is not None:
            colors[:, channel] = values
    return PreviewMesh(vertices, faces.astype(np.int64), colors, path.name, read_vertex_property(path, "confidence"))


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


# -- drawing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RayHits:
    """What the rays of one camera hit: ``face`` [H, W] (-1 nothing), barycentrics [H, W, 2], ``toward`` the camera."""

    hit: Bool[Array, "h w"]
    face: Int[Array, "h w"]
    barycentric: Float[Array, "h w 2"]
    directions_world: Float[Array, "h w 3"]
    depth_m: Float[Array, "h w"]  # along the ray; inf where nothing is hit


class MeshRaycaster:
    """Casts camera rays at one mesh. Vertices are kept relative to their mean: Embree works in float32."""

    def __init__(self, vertices_world: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> None:
        import open3d as o3d

        self.vertices_world, self.faces = vertices_world, faces
        self._offset = vertices_world.mean(0)
        self._scene = o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            o3d.core.Tensor(np.ascontiguousarray(vertices_world - self._offset, np.float32)),
            o3d.core.Tensor(np.ascontiguousarray(faces, np.uint32)),
        )

    def cast(
        self, cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], width: int, height: int
    ) -> RayHits:
        """Rays through all pixel centres of a ``width`` × ``height`` picture with these ``intrinsics``."""
        import open3d as o3d

        xs, ys = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        origin, directions = rays_world(cam_from_world, intrinsics, np.stack([xs.ravel(), ys.ravel()], axis=1))
        rays = np.concatenate([np.broadcast_to(origin - self._offset, directions.shape), directions], axis=1)
        hits: dict[str, Any] = self._scene.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))
        depth = hits["t_hit"].numpy().reshape(height, width)
        hit = np.isfinite(depth)
        face = np.where(hit, hits["primitive_ids"].numpy().reshape(height, width).astype(np.int64), -1)
        uv = hits["primitive_uvs"].numpy().reshape(height, width, 2)
        return RayHits(hit, face, uv, directions.reshape(height, width, 3), depth)


def interpolate_vertices(view: RayHits, faces: Int[Array, "f 3"], values: Float[Array, "v c"]) -> Float[Array, "n c"]:
    """Vertex ``values`` at the n hit pixels, barycentric."""
    corner = values[faces[view.face[view.hit]]]
    u, v = view.barycentric[view.hit].T
    return (1 - u - v)[:, None] * corner[:, 0] + u[:, None] * corner[:, 1] + v[:, None] * corner[:, 2]


def draw_colors(view: RayHits, faces: Int[Array, "f 3"], colors: UInt8[Array, "v 3"]) -> UInt8[Array, "h w 3"]:
    """The mesh in its vertex colours, unlit: the photos' own light is in them."""
    return _paint_hits(view, interpolate_vertices(view, faces, colors.astype(np.float32)))


def draw_confidence(
    view: RayHits, faces: Int[Array, "f 3"], normals: Float[Array, "v 3"], confidence: Float[Array, "v"]
) -> UInt8[Array, "h w 3"]:
    """The mesh in the colours of its confidence, lit from the camera."""
    rgb = confidence_colors(interpolate_vertices(view, faces, confidence[:, None])[:, 0])
    return _paint_hits(view, rgb * _headlight_shading(view, faces, normals)[:, None])


def draw_shape(view: RayHits, faces: Int[Array, "f 3"], normals: Float[Array, "v 3"]) -> UInt8[Array, "h w 3"]:
    """The mesh in plain grey, lit from the camera (two-sided Lambert): shows the shape that colours hide."""
    return _paint_hits(
        view, np.repeat(255 * MESH_ALBEDO * _headlight_shading(view, faces, normals)[:, None], 3, axis=1)
    )


def _headlight_shading(view: RayHits, faces: Int[Array, "f 3"], normals: Float[Array, "v 3"]) -> Float[Array, "n"]:
    normal = normalize(interpolate_vertices(view, faces, normals), 1e-9)
    return 0.18 + 0.82 * np.abs(np.einsum("nc,nc->n", normal, view.directions_world[view.hit]))


def _paint_hits(view: RayHits, rgb: Float[Array, "n 3"]) -> UInt8[Array, "h w 3"]:
    out = np.empty((*view.hit.shape, 3), np.uint8)
    out[:] = BACKGROUND_RGB
    out[view.hit] = np.clip(np.round(rgb), 0, 255).astype(np.uint8)
    return out


def downsample_half(rgb: UInt8[Array, "h w 3"]) -> UInt8[Array, "h2 w2 3"]:
    """Mean of every 2 × 2 pixels: pictures are cast at twice their size against jagged edges."""
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    return rgb[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3)).round().astype(np.uint8)
