"""Comparisons of some photos with the mesh, drawn from the same cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, is_in_image, project
from quoin.pipeline.geometry.mesh import vertex_normals
from quoin.pipeline.scene.posed_images import PYRAMID_LEVELS, Posed, read_photo
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.report.facts import ViewFacts
from quoin.stages.report.mesh_rendering import (
    MeshRaycaster,
    PreviewMesh,
    RayHits,
    downsample_half,
    draw_colors,
    draw_confidence,
    draw_shape,
)
from quoin.stages.report.pictures import jpeg_uri

Array = np.ndarray


@dataclass(frozen=True)
class ViewerCamera:
    """The first camera of the viewer: ``eye`` and ``target`` in the world, vertical field of view."""

    number: int
    eye: list[float]
    target: list[float]
    fov_deg: float


@dataclass(frozen=True)
class ViewComparison:
    """One photo and the mesh from the same camera, as data URIs, and where a viewer stands to see the same."""

    photo: int  # index into Posed
    facts: ViewFacts
    pictures: dict[str, str]  # "photo", "colors", "shape"; "confidence" where the mesh tells
    start: ViewerCamera
    framed_share: float  # of the mesh's vertices: inside the picture, visible or not


def render_comparisons(
    run: Run, posed: Posed, mesh: PreviewMesh, n_views: int, edge_px: int, report: Reporter
) -> list[ViewComparison]:
    """``n_views`` spread-out photos beside the mesh, which is cast at twice the size of the picture."""
    n_points = np.bincount(posed.track_photo, minlength=len(posed))
    chosen = select_spread_cameras(
        centers_world(posed.cam_from_world), posed.cam_from_world[:, 2, :3], n_points, n_views
    )
    caster = MeshRaycaster(mesh.vertices_world, mesh.faces)
    normals = vertex_normals(mesh.vertices_world, mesh.faces)
    comparisons = []
    with report.task("report", len(chosen), "views") as advance:
        for number, photo in enumerate(chosen, 1):
            width, height = (int(v) for v in posed.sizes[photo])
            shrink = min(1.0, edge_px / max(width, height))
            w, h = max(1, round(width * shrink)), max(1, round(height * shrink))
            scale = np.tile([2 * w / width, 2 * h / height], 2)
            view = caster.cast(posed.cam_from_world[photo], posed.intrinsics[photo] * scale, 2 * w, 2 * h)
            rgb = {
                "photo": read_resized_photo(run, photo, w, h),
                "colors": downsample_half(draw_colors(view, mesh.faces, mesh.colors)),
                "shape": downsample_half(draw_shape(view, mesh.faces, normals)),
            }
            if mesh.confidence is not None:
                rgb["confidence"] = downsample_half(draw_confidence(view, mesh.faces, normals, mesh.confidence))
            report.picture(f"report/{number}", np.concatenate(list(rgb.values()), axis=1), caption=posed.names[photo])
            facts = ViewFacts(number=number, name=posed.names[photo], covered_share=float(view.hit.mean()))
            pictures = {kind: jpeg_uri(picture) for kind, picture in rgb.items()}
            comparisons.append(
                ViewComparison(
                    photo,
                    facts,
                    pictures,
                    _viewer_camera(posed, photo, number, view),
                    _framed_share(posed, photo, mesh),
                )
            )
            advance(number)
    return comparisons


def select_spread_cameras(
    centers_world: Float[Array, "n 3"],
    directions_world: Float[Array, "n 3"],
    n_points: Int[Array, "n"],
    n_views: int,
) -> list[int]:
    """Indices of ``n_views`` cameras far from one another in place and gaze (farthest-point selection), ascending.

    The first is the one with most points; cameras with under a quarter of the median point count are not taken.
    """
    candidates = np.flatnonzero(n_points >= 0.25 * np.median(n_points)) if len(n_points) else np.array([], int)
    if not len(candidates) or n_views < 1:
        return []
    offsets = centers_world[candidates] - np.median(centers_world[candidates], axis=0)
    scale = float(np.median(np.linalg.norm(offsets, axis=1))) or 1.0
    features = np.concatenate([offsets / scale, directions_world[candidates]], axis=1)
    chosen = [int(np.argmax(n_points[candidates]))]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < min(n_views, len(candidates)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return sorted(int(candidates[i]) for i in chosen)


def _viewer_camera(posed: Posed, photo: int, number: int, view: RayHits) -> ViewerCamera:
    """The camera of ``photo`` for the viewer, turning about what lies in the middle of its view."""
    eye = centers_world(posed.cam_from_world[photo : photo + 1])[0]
    depth = float(np.median(view.depth_m[view.hit])) if view.hit.any() else 1.0
    height, fy = float(posed.sizes[photo, 1]), float(posed.intrinsics[photo, 1])
    target = eye + depth * posed.cam_from_world[photo, 2, :3]
    return ViewerCamera(number, eye.tolist(), target.tolist(), math.degrees(2 * math.atan(0.5 * height / fy)))


def _framed_share(posed: Posed, photo: int, mesh: PreviewMesh) -> float:
    """Share of the mesh's vertices that fall into the picture of ``photo``; the largest makes the best overview."""
    vertices = mesh.vertices_world[:: max(1, len(mesh.vertices_world) // 20_000)]
    xy, depth = project(posed.cam_from_world[photo], posed.intrinsics[photo], vertices)
    return float(is_in_image(xy, depth, posed.sizes[photo]).mean())


def read_resized_photo(run: Run, photo: int, width: int, height: int) -> UInt8[Array, "h w 3"]:
    """The undistorted photo at exactly this size, from the smallest pyramid level that is not smaller."""
    from PIL import Image

    level = 0
    while level + 1 < PYRAMID_LEVELS and arrays.exists(run.scene, f"photos/{photo:06d}/rgb{level + 1}"):
        if arrays.open_array(run.scene, f"photos/{photo:06d}/rgb{level + 1}").shape[1] < width:
            break
        level += 1
    image = Image.fromarray(read_photo(run, photo, level))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
