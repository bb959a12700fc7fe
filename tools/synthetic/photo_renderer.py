"""Photos of triangle meshes: rays through every pixel (Embree in Open3D), exposure, tone curve, sensor noise.

And the part of a surface that its cameras see, which a reconstruction can be scored on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import open3d as o3d
from jaxtyping import Bool, Float, Float32, Int, UInt8

from quoin.pipeline.geometry.cameras import (
    centers_world,
    frustum_query,
    is_in_image,
    normalize,
    project,
    rays_world,
)

Array = np.ndarray
ReflectanceFunction = Callable[[Float[Array, "n 3"], Float[Array, "n 3"], Int[Array, "n"]], Float[Array, "n 3"]]
# origin, directions: linear light that comes back along each ray
RadianceFunction = Callable[[Float[Array, "3"], Float[Array, "n 3"]], Float[Array, "n 3"]]

SAMPLES_PER_AXIS = 2  # rays per pixel and axis
BAND_ROWS = 50  # rows of pixels rendered at once, to bound memory
MIN_CAMERAS = 2  # that see a triangle: one alone cannot tell how far away it is
MIN_VIEW_COSINE = 0.1  # faces seen at less than 6 degrees from their plane do not count as seen


@dataclass(frozen=True)
class Solid:
    """A mesh to cast rays at, and the linear reflectance of its points: ``reflectance(points, normals, faces)``."""

    scene: o3d.t.geometry.RaycastingScene
    reflectance: ReflectanceFunction


def build_raycaster(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> o3d.t.geometry.RaycastingScene:
    """An Open3D raycaster on one mesh."""
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.asarray(vertices, np.float32)), o3d.core.Tensor(np.asarray(faces, np.uint32))
    )
    return scene


def covered_share(
    solid: Solid, cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], size: tuple[int, int]
) -> float:
    """Share of a photo's pixels whose ray meets the solid, whatever else hides it; measured at every 8th pixel."""
    xs, ys = np.meshgrid(np.arange(4, size[0], 8), np.arange(4, size[1], 8))
    pixels = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(float)
    return float(solid.scene.test_occlusions(_pixel_rays(cam_from_world, intrinsics, pixels)).numpy().mean())


def people_mask(
    people: Solid,
    solid: Solid,
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
) -> Bool[Array, "h w"]:
    """Mask of the pixels that show ``people``: a ray through their centre meets them before the solid."""
    xs, ys = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    rays = _pixel_rays(cam_from_world, intrinsics, np.stack([xs.ravel(), ys.ravel()], axis=1))
    reach, beyond = (s.scene.cast_rays(rays)["t_hit"].numpy() for s in (people, solid))
    return (reach < beyond).reshape(size[1], size[0])


@dataclass(frozen=True)
class PhotoDevelopment:
    """How light becomes a photo: ``gain`` is exposure times tint by channel, the display gamma is 2 / ``gamma``."""

    gain: Float[Array, "3"]
    gamma: float = 1.0
    noise: Float[Array, "h w 3"] | None = None  # added to the display values of 0..1


def render_photo(
    radiance_function: RadianceFunction,
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    development: PhotoDevelopment,
    samples: int = SAMPLES_PER_AXIS,
) -> UInt8[Array, "h w 3"]:
    """A photo of ``size`` (width, height), from ``samples`` rays per pixel and axis."""
    width, height = size
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        xs, ys = np.meshgrid(np.arange(width * samples) + 0.5, np.arange(rows * samples) + 0.5)
        pixels = np.stack([xs.ravel() / samples, ys.ravel() / samples + top], axis=1)
        origin, directions = rays_world(cam_from_world, intrinsics, pixels)
        light = radiance_function(origin.astype(np.float32), directions.astype(np.float32)) * development.gain
        display = np.clip(light, 0.0, 1.0) ** (development.gamma / 2)
        display = display.reshape(rows, samples, width, samples, 3).mean(axis=(1, 3))
        if development.noise is not None:
            display = np.clip(display + development.noise[top : top + rows], 0.0, 1.0)
        out[top : top + rows] = (255 * display + 0.5).astype(np.uint8)
    return out


def _pixel_rays(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], pixels: Float[Array, "n 2"]
) -> Float32[Array, "n 6"]:
    """Rays through pixels in Open3D's layout: origin and direction in one row."""
    origin, directions = rays_world(cam_from_world, intrinsics, pixels)
    return np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)


def visible_faces(
    scene: o3d.t.geometry.RaycastingScene,
    triangles: Float[Array, "f 3 3"],
    cam_from_world: Float[Array, "n 3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    occluders: Sequence[o3d.t.geometry.RaycastingScene | None] | None = None,
) -> Bool[Array, "f"]:
    """Mask of the triangles that at least MIN_CAMERAS cameras see: in the picture, not edge-on, the middle not hidden.

    Triangles count from either side; the inside of a solid is hidden by its own faces. ``occluders``: for each camera,
    what stands before it in its photo only.
    """
    middle = triangles.mean(axis=1)
    normal = normalize(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]))
    count = np.zeros(len(triangles), np.int64)
    occluders = occluders or [None] * len(cam_from_world)
    within = frustum_query(middle)
    for pose, center, occluder in zip(cam_from_world, centers_world(cam_from_world), occluders, strict=True):
        candidates = within(pose, intrinsics, size)
        pixels, depth = project(pose, intrinsics, middle[candidates])
        toward = center - middle[candidates]
        distance = np.linalg.norm(toward, axis=1)
        facing = np.abs((normal[candidates] * toward).sum(1)) > MIN_VIEW_COSINE * distance
        chosen = np.flatnonzero(is_in_image(pixels, depth, size) & facing)
        # The ray starts at the camera and must reach the face; what lies within 5 mm of the face does not hide it.
        rays = np.concatenate([np.broadcast_to(center, (len(chosen), 3)), -toward[chosen]], axis=1).astype(np.float32)
        hit_distances = [s.cast_rays(rays)["t_hit"].numpy() for s in (scene, occluder) if s is not None]
        reach = np.min(hit_distances, axis=0) * distance[chosen]
        count[candidates[chosen]] += reach > distance[chosen] - 0.005
    return count >= MIN_CAMERAS
