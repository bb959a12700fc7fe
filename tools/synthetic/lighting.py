"""Light of the synthetic scenes: sun, sky and haze outdoors, a window and ambient light indoors.

Outdoors: one shadow ray to the sun, Lambert shading, a cloudy sky, haze.

Indoors: a bright window and a soft ambient light, computed once for every vertex of a room.
Irradiance E(x, n) = A · (1/k) Σᵢ vᵢ(x, n) + W · (1/m) Σⱼ sⱼ(x) cos θ cos θⱼ / (π r²) · area: over k directions of the
hemisphere about n, cosine-weighted, v = 1 − MAX_OCCLUSION exp(−distance to what is met / OCCLUSION_RANGE_M), which
darkens corners (ambient occlusion; Zhukov et al. 1998); over m points of the window, s = 1 where nothing stands
between. It is interpolated over faces and does not depend on the view. No mirrors, no second bounce.
"""

from __future__ import annotations

import numpy as np
import open3d as o3d
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.cameras import normalize
from quoin.tools.synthetic.materials import SolidNoise
from quoin.tools.synthetic.photo_renderer import RadianceFunction, Solid, build_raycaster
from quoin.tools.synthetic.rooms import FINISHES, Room, finish_albedo

Array = np.ndarray

# -- outdoors ----------------------------------------------------------------------------------------------------------

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


# -- indoors -----------------------------------------------------------------------------------------------------------

AMBIENT_LIGHT = np.array([0.50, 0.48, 0.45], np.float32)
WINDOW_LIGHT = np.array([7.6, 8.0, 8.4], np.float32)  # radiance of the window times π, as far as it lights the room
PANE_RADIANCE = 1.5  # of the window itself in a photo: overexposed
OCCLUSION_RANGE_M, MAX_OCCLUSION = 0.35, 0.6
# A vertex takes its light this share of the way to the middle of its faces, where no neighbouring piece covers it.
SAMPLE_INSET_SHARE = 0.15
N_DIRECTIONS, N_WINDOW_POINTS = 48, 24
VERTICES_PER_BATCH = 20_000  # to bound memory


def light_room(room: Room, noise: SolidNoise) -> tuple[Solid, RadianceFunction]:
    """The room as a solid, and the light that rays see in it."""
    caster = build_raycaster(room.vertices, room.faces)
    light = irradiance(room, caster)
    turn = room.world_from_room.astype(np.float32)

    def reflectance(points: Array, normals: Array, face: Array) -> Array:
        return finish_albedo(points @ turn, room.material[face], room.tint[face], room.piece[face], noise)

    def radiance_function(origin: Float[Array, "3"], directions: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        cast = caster.cast_rays(rays)
        depth_m = cast["t_hit"].numpy()
        hit = np.flatnonzero(np.isfinite(depth_m))
        face = cast["primitive_ids"].numpy()[hit].astype(np.int64)
        u, v = cast["primitive_uvs"].numpy()[hit].T
        corners = light[room.faces[face]]
        incoming = corners[:, 0] * (1 - u - v)[:, None] + corners[:, 1] * u[:, None] + corners[:, 2] * v[:, None]
        out = np.zeros((len(rays), 3), np.float32)  # a room is closed: nothing misses it
        points = origin + depth_m[hit, None] * directions[hit]
        out[hit] = reflectance(points, cast["primitive_normals"].numpy()[hit], face) * incoming
        return out

    return Solid(caster, reflectance), radiance_function


def irradiance(room: Room, caster: o3d.t.geometry.RaycastingScene) -> Float[Array, "v 3"]:
    """Light that arrives at each vertex from the side its faces look to; 1 exposes white paint fully."""
    normals, middles = vertex_surroundings(room.vertices, room.faces)
    places = room.vertices + SAMPLE_INSET_SHARE * (middles - room.vertices) + 2e-3 * normals
    bright = np.zeros(len(room.vertices), bool)
    bright[room.faces[room.material == FINISHES.index("pane")]] = True
    panes, pane_normals, area = _window_samples(room)
    out = np.empty((len(room.vertices), 3), np.float32)
    for start in range(0, len(out), VERTICES_PER_BATCH):
        part = slice(start, start + VERTICES_PER_BATCH)
        out[part] = AMBIENT_LIGHT * _ambient_visibility(places[part], normals[part], caster)[:, None]
        out[part] += (
            WINDOW_LIGHT * _window_form_factor(places[part], normals[part], panes, pane_normals, area, caster)[:, None]
        )
    out[bright] = PANE_RADIANCE
    return out


def vertex_surroundings(
    vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]
) -> tuple[Float[Array, "v 3"], Float[Array, "v 3"]]:
    """Unit normals of vertices, and the middle of the faces they belong to; both are means by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1, keepdims=True)
    values = np.concatenate([cross, area * (a + b + c) / 3, area], axis=1)
    total = np.zeros((len(vertices), values.shape[1]))
    for k in range(3):
        np.add.at(total, faces[:, k], values)
    return normalize(total[:, :3]), total[:, 3:6] / np.maximum(total[:, 6:], 1e-12)


def _ambient_visibility(points: Array, normals: Array, caster: o3d.t.geometry.RaycastingScene) -> Array:
    """Share of ambient light that reaches each point: 1 in the open, less near other surfaces."""
    index = np.arange(N_DIRECTIONS) + 0.5
    angle, radius = index * np.pi * (3 - np.sqrt(5)), np.sqrt(index / N_DIRECTIONS)  # a sunflower's seeds
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], axis=1)
    aside = np.where(np.abs(normals[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    tangent = normalize(np.cross(aside, normals))
    frames = np.stack([tangent, np.cross(normals, tangent), normals], axis=1)
    directions = np.einsum("kc,ncd->nkd", local, frames)
    rays = np.concatenate([np.broadcast_to(points[:, None], directions.shape), directions], axis=2)
    hit_distances = caster.cast_rays(rays.reshape(-1, 6).astype(np.float32))["t_hit"].numpy().reshape(-1, N_DIRECTIONS)
    return (1 - MAX_OCCLUSION * np.exp(-hit_distances / OCCLUSION_RANGE_M)).mean(axis=1)


def _window_samples(room: Room) -> tuple[Array, Array, float]:
    """Points spread over the window panes, their normals, and the area of all panes."""
    faces = room.faces[room.material == FINISHES.index("pane")]
    a, b, c = (room.vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    areas = np.linalg.norm(cross, axis=1) / 2
    pick = np.random.default_rng(0).choice(len(faces), N_WINDOW_POINTS, p=areas / areas.sum())
    return (a + b + c)[pick] / 3, cross[pick] / (2 * areas[pick, None]), float(areas.sum())


def _window_form_factor(
    points: Array,
    normals: Array,
    panes: Array,
    pane_normals: Array,
    area: float,
    caster: o3d.t.geometry.RaycastingScene,
) -> Array:
    """Cosine-weighted share of the hemisphere that the window fills, seen from each point."""
    total = np.zeros(len(points))
    for pane, pane_normal in zip(panes, pane_normals, strict=True):
        away = pane + 5e-3 * pane_normal - points
        distance = np.linalg.norm(away, axis=1)
        facing = np.clip((normals * away).sum(1), 0, None) * np.clip(-(away @ pane_normal), 0, None)
        lit: Bool[Array, "n"] = facing > 0
        rays = np.concatenate([points[lit], away[lit]], axis=1).astype(np.float32)
        seen = np.zeros(len(points), bool)
        seen[lit] = ~caster.test_occlusions(rays, tfar=1.0).numpy()
        total += np.where(seen, facing / np.maximum(np.pi * distance**4, 1e-9), 0.0)
    return total * area / len(panes)
