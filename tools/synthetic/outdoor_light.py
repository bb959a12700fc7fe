"""Outdoor light: one shadow ray to the sun, Lambert shading, a cloudy sky, haze."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quoin.tools.synthetic.materials import SolidNoise
from quoin.tools.synthetic.photo_renderer import Solid

Array = np.ndarray

SUN_DIRECTION = np.array([0.42, -0.62, 0.66], np.float32) / np.float32(np.linalg.norm([0.42, -0.62, 0.66]))
SUN_RADIANCE, SKY_RADIANCE = np.array([1.0, 0.95, 0.86], np.float32), np.array([0.4, 0.45, 0.53], np.float32)
HORIZON_COLOR, ZENITH_COLOR = np.array([0.62, 0.68, 0.75], np.float32), np.array([0.2, 0.36, 0.66], np.float32)
HAZE_LENGTH_M = 300.0
CLOUD_COLOR = np.array([0.85, 0.86, 0.88], np.float32)


def outdoor_radiance(
    solids: list[Solid],
    noise: SolidNoise,
    origin: Float[Array, "3"],
    directions: Float[Array, "n 3"],
    haze_m: float = HAZE_LENGTH_M,
) -> Float[Array, "n 3"]:
    """Linear light that arrives at ``origin`` from ``directions``; haze leaves a third of it after ``haze_m``."""
    rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
    casts = [solid.scene.cast_rays(rays) for solid in solids]
    depths = np.stack([cast["t_hit"].numpy() for cast in casts])
    nearest = depths.argmin(axis=0)
    out = np.empty((len(rays), 3), np.float32)
    is_sky = ~np.isfinite(depths.min(axis=0))
    out[is_sky] = sky_color(directions[is_sky], noise)
    for index, (solid, cast) in enumerate(zip(solids, casts, strict=True)):
        hit = np.flatnonzero((nearest == index) & ~is_sky)
        if not len(hit):
            continue
        depth_m, ray_directions = depths[index, hit], directions[hit]
        normals = cast["primitive_normals"].numpy()[hit]
        normals = normals * -np.sign((normals * ray_directions).sum(1, keepdims=True))
        points = origin + depth_m[:, None] * ray_directions
        facing = np.clip(normals @ SUN_DIRECTION, 0.0, 1.0)
        is_lit = np.flatnonzero(facing > 0)
        start = points[is_lit] + 2e-3 * normals[is_lit]
        shadow_rays = np.concatenate([start, np.broadcast_to(SUN_DIRECTION, start.shape)], axis=1).astype(np.float32)
        for caster in solids:
            facing[is_lit] *= ~caster.scene.test_occlusions(shadow_rays).numpy()
        irradiance = SUN_RADIANCE * facing[:, None] + SKY_RADIANCE * (0.75 + 0.25 * normals[:, 2:])
        colour = solid.reflectance(points, normals, cast["primitive_ids"].numpy()[hit].astype(np.int64)) * irradiance
        haze = (1 - np.exp(-depth_m / haze_m))[:, None]
        out[hit] = colour * (1 - haze) + HORIZON_COLOR * haze
    return out


def sky_color(directions: Float[Array, "n 3"], noise: SolidNoise) -> Float[Array, "n 3"]:
    """Colour of the sky: blue that pales towards the horizon, with soft clouds on a plane far above."""
    up = np.clip(directions[:, 2:], 0.0, 1.0)
    blue = HORIZON_COLOR * (1 - up) ** 3 + ZENITH_COLOR * (1 - (1 - up) ** 3)
    plane = np.concatenate([directions[:, :2] / np.maximum(up + 0.08, 0.08), np.zeros_like(up)], axis=1)
    cloud = np.clip(0.5 * noise.coarse(plane.astype(np.float32)), 0.0, 1.0)[:, None] * np.clip(4 * up, 0, 1)
    return (blue * (1 - 0.7 * cloud) + CLOUD_COLOR * 0.7 * cloud).astype(np.float32)
