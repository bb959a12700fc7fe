"""Pictures of triangles: primary rays, one shadow ray each (Embree through Open3D), Lambert shading, a cloudy sky."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import open3d as o3d
from jaxtyping import Float, Int, UInt8

from pipeline.cameras import rays_world
from stages.demo.materials import Noise

Array = np.ndarray
Paint = Callable[[Float[Array, "n 3"], Float[Array, "n 3"], Int[Array, "n"]], Float[Array, "n 3"]]

TO_SUN = np.array([0.42, -0.62, 0.66], np.float32) / np.float32(np.linalg.norm([0.42, -0.62, 0.66]))
SUN, SKY_LIGHT = np.array([1.0, 0.95, 0.86], np.float32), np.array([0.4, 0.45, 0.53], np.float32)
HORIZON, ZENITH = np.array([0.62, 0.68, 0.75], np.float32), np.array([0.2, 0.36, 0.66], np.float32)
CLOUD = np.array([0.85, 0.86, 0.88], np.float32)
SAMPLES = 2  # per pixel and axis
BAND_ROWS = 50  # rows of pixels rendered at once, which bounds memory


@dataclass(frozen=True)
class Solid:
    """Triangles to cast rays at, and ``paint(points, normals, faces)`` for their linear reflectance."""

    scene: o3d.t.geometry.RaycastingScene
    paint: Paint


def raycaster(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> o3d.t.geometry.RaycastingScene:
    """Open3D's ray caster on one mesh."""
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.asarray(vertices, np.float32)), o3d.core.Tensor(np.asarray(faces, np.uint32))
    )
    return scene


def covered(
    solid: Solid, cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], size: tuple[int, int]
) -> float:
    """Share of a photo in which a ray meets the solid, whatever else stands before it; by every 8th pixel."""
    xs, ys = np.meshgrid(np.arange(4, size[0], 8), np.arange(4, size[1], 8))
    pixels = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(float)
    origin, directions = rays_world(cam_from_world, intrinsics, pixels)
    rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
    return float(solid.scene.test_occlusions(rays).numpy().mean())


def render(
    solids: list[Solid],
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    noise: Noise,
    gain: Float[Array, "3"],
    gamma: float = 1.0,
) -> UInt8[Array, "h w 3"]:
    """A photo of ``size`` (width, height); ``gain``: exposure times tint, by channel. Display gamma 2 / ``gamma``."""
    width, height = size
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND_ROWS):
        rows = min(BAND_ROWS, height - top)
        xs, ys = np.meshgrid(np.arange(width * SAMPLES) + 0.5, np.arange(rows * SAMPLES) + 0.5)
        pixels = np.stack([xs.ravel() / SAMPLES, ys.ravel() / SAMPLES + top], axis=1)
        origin, directions = rays_world(cam_from_world, intrinsics, pixels)
        light = radiance(solids, origin.astype(np.float32), directions.astype(np.float32), noise) * gain
        display = np.clip(light, 0.0, 1.0) ** (gamma / 2)
        display = display.reshape(rows, SAMPLES, width, SAMPLES, 3).mean(axis=(1, 3))
        out[top : top + rows] = (255 * display + 0.5).astype(np.uint8)
    return out


def radiance(
    solids: list[Solid], origin: Float[Array, "3"], directions: Float[Array, "n 3"], noise: Noise
) -> Float[Array, "n 3"]:
    """Linear light that comes along ``-directions`` to ``origin``."""
    rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
    casts = [solid.scene.cast_rays(rays) for solid in solids]
    depths = np.stack([cast["t_hit"].numpy() for cast in casts])
    nearest = depths.argmin(axis=0)
    out = np.empty((len(rays), 3), np.float32)
    missed = ~np.isfinite(depths.min(axis=0))
    out[missed] = sky(directions[missed], noise)
    for index, (solid, cast) in enumerate(zip(solids, casts, strict=True)):
        hit = np.flatnonzero((nearest == index) & ~missed)
        if not len(hit):
            continue
        depth_m, toward = depths[index, hit], directions[hit]
        normals = cast["primitive_normals"].numpy()[hit]
        normals = normals * -np.sign((normals * toward).sum(1, keepdims=True))
        points = origin + depth_m[:, None] * toward
        facing = np.clip(normals @ TO_SUN, 0.0, 1.0)
        lit = np.flatnonzero(facing > 0)
        start = points[lit] + 2e-3 * normals[lit]
        shadow_rays = np.concatenate([start, np.broadcast_to(TO_SUN, start.shape)], axis=1).astype(np.float32)
        for caster in solids:
            facing[lit] *= ~caster.scene.test_occlusions(shadow_rays).numpy()
        arriving = SUN * facing[:, None] + SKY_LIGHT * (0.75 + 0.25 * normals[:, 2:])
        colour = solid.paint(points, normals, cast["primitive_ids"].numpy()[hit].astype(np.int64)) * arriving
        haze = (1 - np.exp(-depth_m / 300.0))[:, None]
        out[hit] = colour * (1 - haze) + HORIZON * haze
    return out


def sky(directions: Float[Array, "n 3"], noise: Noise) -> Float[Array, "n 3"]:
    """Blue that pales to the horizon, with soft clouds on a plane far above."""
    up = np.clip(directions[:, 2:], 0.0, 1.0)
    blue = HORIZON * (1 - up) ** 3 + ZENITH * (1 - (1 - up) ** 3)
    plane = np.concatenate([directions[:, :2] / np.maximum(up + 0.08, 0.08), np.zeros_like(up)], axis=1)
    cloud = np.clip(0.5 * noise.coarse(plane.astype(np.float32)), 0.0, 1.0)[:, None] * np.clip(4 * up, 0, 1)
    return (blue * (1 - 0.7 * cloud) + CLOUD * 0.7 * cloud).astype(np.float32)
