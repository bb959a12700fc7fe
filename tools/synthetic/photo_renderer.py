"""Pictures of triangles: rays through every pixel (Embree through Open3D), exposure, tone curve, grain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import open3d as o3d
from jaxtyping import Bool, Float, Float32, Int, UInt8

from quoin.pipeline.geometry.cameras import rays_world

Array = np.ndarray
ReflectanceFunction = Callable[[Float[Array, "n 3"], Float[Array, "n 3"], Int[Array, "n"]], Float[Array, "n 3"]]
RadianceFunction = Callable[
    [Float[Array, "3"], Float[Array, "n 3"]], Float[Array, "n 3"]
]  # origin, directions: linear light

SAMPLES_PER_AXIS = 2  # per pixel and axis, where nothing else is asked for
BAND_ROWS = 50  # rows of pixels rendered at once, which bounds memory


@dataclass(frozen=True)
class Solid:
    """Triangles to cast rays at, and ``reflectance(points, normals, faces)`` for their linear reflectance."""

    scene: o3d.t.geometry.RaycastingScene
    reflectance: ReflectanceFunction


def build_raycaster(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> o3d.t.geometry.RaycastingScene:
    """Open3D's ray caster on one mesh."""
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.asarray(vertices, np.float32)), o3d.core.Tensor(np.asarray(faces, np.uint32))
    )
    return scene


def covered_share(
    solid: Solid, cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], size: tuple[int, int]
) -> float:
    """Share of a photo in which a ray meets the solid, whatever else stands before it; by every 8th pixel."""
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
    """Pixels whose middle shows ``people`` and not the solid."""
    xs, ys = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    rays = _pixel_rays(cam_from_world, intrinsics, np.stack([xs.ravel(), ys.ravel()], axis=1))
    reach, beyond = (s.scene.cast_rays(rays)["t_hit"].numpy() for s in (people, solid))
    return (reach < beyond).reshape(size[1], size[0])


def render_photo(
    radiance_function: RadianceFunction,
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    gain: Float[Array, "3"],
    gamma: float = 1.0,
    grain: Float[Array, "h w 3"] | None = None,
    samples: int = SAMPLES_PER_AXIS,
) -> UInt8[Array, "h w 3"]:
    """A photo of ``size`` (width, height); ``gain``: exposure times tint, by channel. Display gamma 2 / ``gamma``.

    ``grain`` is added to the display values, which go from 0 to 1; ``samples`` rays per pixel and axis.
    """
    width, height = size
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        xs, ys = np.meshgrid(np.arange(width * samples) + 0.5, np.arange(rows * samples) + 0.5)
        pixels = np.stack([xs.ravel() / samples, ys.ravel() / samples + top], axis=1)
        origin, directions = rays_world(cam_from_world, intrinsics, pixels)
        light = radiance_function(origin.astype(np.float32), directions.astype(np.float32)) * gain
        display = np.clip(light, 0.0, 1.0) ** (gamma / 2)
        display = display.reshape(rows, samples, width, samples, 3).mean(axis=(1, 3))
        if grain is not None:
            display = np.clip(display + grain[top : top + rows], 0.0, 1.0)
        out[top : top + rows] = (255 * display + 0.5).astype(np.uint8)
    return out


def _pixel_rays(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], pixels: Float[Array, "n 2"]
) -> Float32[Array, "n 6"]:
    """Origins and directions of rays through pixels, as Open3D takes them."""
    origin, directions = rays_world(cam_from_world, intrinsics, pixels)
    return np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
