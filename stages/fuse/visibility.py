"""Visibility of vertices in photos: depth maps by ray casting, then tests of depth, angle and mask per vertex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import binary_erosion

from quoin.pipeline.geometry.cameras import center_world, frustum_query, is_in_image
from quoin.pipeline.imaging import labels
from quoin.pipeline.storage import arrays

Array = np.ndarray
LocalMesh = tuple[Float[Array, "v 3"], Int[Array, "f 3"]]  # vertices in the frame of the views, faces

CHUNK_VERTICES = 1 << 15  # tested at once: their data fit into the processor's cache
SKY_MARGIN_SHARE = 0.003  # of the longest edge of a photo, from the outline of sky to pixels that count as sky
MAX_SLOPE_TAN = 6.0  # tan of the angle up to which a slanted surface widens the depth tolerance
OCCLUSION_GROUP = "surface/hidden"


@dataclass(frozen=True)
class LocalView:
    """One camera at the size of its depth map, in the mesh's local frame (float32 suffices there)."""

    cam_from_local: Float[Array, "3 4"]
    intrinsics: Float[Array, "4"]
    width: int
    height: int

    @property
    def center(self) -> Float[Array, "3"]:
        return center_world(self.cam_from_local)


def make_local_view(
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: Int[Array, "2"],
    edge_px: int,
    middle_world: Float[Array, "3"],
) -> LocalView:
    """The camera of a photo scaled to ``edge_px`` along its longest edge, in the frame with origin ``middle_world``."""
    width, height = int(size[0]), int(size[1])
    scale = min(1.0, edge_px / max(width, height))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    ratio = np.array([small[0] / width, small[1] / height])
    moved = cam_from_world.copy()
    moved[:, 3] += cam_from_world[:, :3] @ middle_world
    return LocalView(moved, intrinsics * np.concatenate([ratio, ratio]), *small)


def make_raycasting_scene(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Any:
    """An Open3D ray-casting scene (Embree) of a mesh in its local frame."""
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.ascontiguousarray(vertices, np.float32)),
        o3d.core.Tensor(np.ascontiguousarray(faces, np.uint32)),
    )
    return scene


def render_depth(scene: Any, view: LocalView) -> Float[Array, "h w"]:
    """Depth of the nearest surface at every pixel center; inf where there is none.

    It is negative where the ray hits the back of the surface: a camera inside a solid sees nothing.
    """
    import open3d as o3d

    xs = (np.arange(view.width) + 0.5 - view.intrinsics[2]) / view.intrinsics[0]
    ys = (np.arange(view.height) + 0.5 - view.intrinsics[3]) / view.intrinsics[1]
    rays = np.empty((view.height, view.width, 6), np.float32)
    rays[:, :, :3] = view.center
    rotation = view.cam_from_local[:, :3]  # directions have z = 1 in the camera: hit distances are depths
    rays[:, :, 3:] = xs[None, :, None] * rotation[0] + ys[:, None, None] * rotation[1] + rotation[2]
    cast = scene.cast_rays(o3d.core.Tensor(rays))
    depth, normal = cast["t_hit"].numpy(), cast["primitive_normals"].numpy()
    behind = np.isfinite(depth) & (np.einsum("hwi,hwi->hw", normal, rays[:, :, 3:]) > 0)
    return np.where(behind, -depth, depth)


@dataclass(frozen=True)
class VisibleVertices:
    """Vertices visible in a photo: index, depth, cosine between normal and view, image coordinates in [0, 1]."""

    vertex: Int[Array, "k"]
    depth: Float[Array, "k"]
    cosine: Float[Array, "k"]
    uv: Float[Array, "k 2"]


@dataclass(frozen=True)
class ViewMaps:
    """A camera, the depth map of the surface in it (``render_depth``), and the photo's mask at any size, if any."""

    view: LocalView
    depth: Float[Array, "h w"]
    mask: UInt8[Array, "mh mw"] | None = None


def visible_vertices(
    maps: ViewMaps,
    vertices: Float[Array, "v 3"],
    normals: Float[Array, "v 3"],
    *,
    tolerance: float,
    min_cosine: float,
    candidates: Int[Array, "n"] | None = None,
) -> VisibleVertices:
    """Vertices in front of the camera, inside image and mask, facing the camera, and not behind the surface.

    A vertex may lie ``tolerance`` behind the depth map, plus the depth by which a surface of its slant changes within
    half the diagonal of a pixel. ``candidates`` (sorted) are the vertices that may be in the image
    (``pipeline.geometry.cameras``), all if None.
    """
    parts = []
    candidates = np.arange(len(vertices)) if candidates is None else candidates
    for start in range(0, max(len(candidates), 1), CHUNK_VERTICES):
        some = candidates[start : start + CHUNK_VERTICES]
        part = _visible_vertices(maps, vertices[some], normals[some], tolerance, min_cosine)
        parts.append((some[part.vertex], part.depth, part.cosine, part.uv))
    return VisibleVertices(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _visible_vertices(
    maps: ViewMaps, vertices: Float[Array, "v 3"], normals: Float[Array, "v 3"], tolerance: float, min_cosine: float
) -> VisibleVertices:
    view, mask = maps.view, maps.mask
    cam = vertices @ view.cam_from_local[:, :3].T.astype(np.float32) + view.cam_from_local[:, 3].astype(np.float32)
    vertex = np.flatnonzero(cam[:, 2] > 1e-6)
    z = cam[vertex, 2]
    focal, middle = view.intrinsics[:2].astype(np.float32), view.intrinsics[2:].astype(np.float32)
    pixel = cam[vertex, :2] / z[:, None] * focal + middle
    size = np.array([view.width, view.height], np.float32)
    inside = is_in_image(pixel, z, size)
    vertex, z, pixel = vertex[inside], z[inside], pixel[inside]

    to_camera = view.center.astype(np.float32) - vertices[vertex]
    distance = np.linalg.norm(to_camera, axis=1)
    cosine = np.einsum("ij,ij->i", normals[vertex], to_camera) / distance
    slope = np.minimum(np.sqrt(np.maximum(1 - cosine**2, 0)) / np.maximum(cosine, 1e-3), MAX_SLOPE_TAN)
    allowed = tolerance + 0.71 * slope * z / focal.min()
    column, row = pixel.astype(np.int32).T
    nearest = maps.depth[row, column]
    good = (cosine > min_cosine) & (z <= nearest + allowed) & (nearest > 0)
    if mask is not None:
        ratio = np.array([mask.shape[1], mask.shape[0]]) / size
        good &= _mask_at(mask, pixel * ratio)
    return VisibleVertices(vertex[good], z[good], cosine[good], pixel[good] / size)


def split_sky(visible: VisibleVertices, pixel_labels: UInt8[Array, "h w"]) -> tuple[VisibleVertices, Int[Array, "s"]]:
    """The visible vertices where the photo shows no sky, and the indices of those where it does.

    Pixels closer than SKY_MARGIN_SHARE to the outline of sky do not count as sky, as its labels may be a little off.
    """
    sky = pixel_labels == labels.SKY
    if not sky.any():
        return visible, visible.vertex[:0]
    sky = binary_erosion(sky, iterations=max(1, round(SKY_MARGIN_SHARE * max(sky.shape))), border_value=1)
    sky_vertices = _mask_at(np.where(sky, 255, 0).astype(np.uint8), visible.uv * np.array(sky.shape[::-1]))
    rest = ~sky_vertices
    return (
        VisibleVertices(visible.vertex[rest], visible.depth[rest], visible.cosine[rest], visible.uv[rest]),
        visible.vertex[sky_vertices],
    )


def _mask_at(mask: UInt8[Array, "h w"], pixel: Float[Array, "k 2"]) -> Bool[Array, "k"]:
    """Whether the mask is set at each pixel."""
    column = np.minimum(pixel[:, 0].astype(np.int32), mask.shape[1] - 1)
    row = np.minimum(pixel[:, 1].astype(np.int32), mask.shape[0] - 1)
    return mask[row, column] > 127


# -- occlusion by a mesh that may not fit into memory ------------------------------------------------------------------


def occlusion_of_mesh(mesh: LocalMesh, views: list[LocalView]) -> Callable[[int], Float[Array, "h w"]]:
    """A function that renders the depth map of view i of the mesh (``render_depth``)."""
    whole = make_raycasting_scene(*mesh)
    return lambda i: render_depth(whole, views[i])


def write_occlusion_maps(mesh: LocalMesh, views: list[LocalView], group: zarr.Group, chunk: int) -> list[int]:
    """Write the depth maps of a chunk for all views that may show it to ``group``; return these views."""
    whole, may_see = make_raycasting_scene(*mesh), frustum_query(mesh[0])
    visible_views = [
        i
        for i, view in enumerate(views)
        if len(may_see(view.cam_from_local, view.intrinsics, (view.width, view.height)))
    ]
    for i in visible_views:
        arrays.write_array(group, _name(i, chunk), render_depth(whole, views[i]).astype(np.float32))
    return visible_views


def occlusion_of_chunks(
    views: list[LocalView], group: zarr.Group, chunks_in_view: Sequence[Sequence[int]]
) -> Callable[[int], Float[Array, "h w"]]:
    """A function that reads the depth map of view i, merged from those of the chunks ``chunks_in_view[i]``."""

    def read(i: int) -> Float[Array, "h w"]:
        nearest = np.full((views[i].height, views[i].width), np.inf, np.float32)
        for chunk in chunks_in_view[i]:
            depth = arrays.read_array(group, _name(i, chunk))
            nearest = np.where(np.abs(depth) < np.abs(nearest), depth, nearest)
        return nearest

    return read


def _name(view: int, chunk: int) -> str:
    return f"{OCCLUSION_GROUP}/{view:06d}_{chunk:05d}"
