"""Colour of the town's materials at points of its surface, as seen from the air. Linear reflectances in [0, 1].

Walls have plinth, windows and doors by the frame of their house; roofs have tiles along their slope; the ground is
road, pavement, garden or square by its street coordinates. All of it carries noise that does not repeat.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from quoin.tools.synthetic.houses import STOREY_HEIGHT_M
from quoin.tools.synthetic.materials import SolidNoise, cell_random
from quoin.tools.synthetic.town import (
    PAVEMENT_EDGE_M,
    QUARTER_SIZE_M,
    ROAD_HALF_WIDTH_M,
    TOWN_MATERIALS,
    Town,
    is_square,
    street_from_world,
)

Array = np.ndarray
WINDOW_BAY_M = 2.3  # from window to window

# fmt: off
PLASTER_COLORS = np.array([
    (0.66, 0.60, 0.48), (0.62, 0.45, 0.28), (0.58, 0.56, 0.52), (0.55, 0.34, 0.24), (0.50, 0.52, 0.42),
                     (0.68, 0.66, 0.62), (0.45, 0.48, 0.54), (0.60, 0.50, 0.30)], np.float32)
TILE_COLORS = np.array([
    (0.40, 0.16, 0.09), (0.34, 0.13, 0.08), (0.46, 0.22, 0.12), (0.24, 0.12, 0.09), (0.18, 0.17, 0.17)],
                 np.float32)
CAR_COLORS = np.array([
    (0.5, 0.5, 0.5), (0.08, 0.08, 0.09), (0.5, 0.06, 0.05), (0.07, 0.13, 0.35), (0.7, 0.7, 0.68)],
                np.float32)
# fmt: on


def town_albedo(
    town: Town,
    points: Float[Array, "n 3"],
    normals: Float[Array, "n 3"],
    face: Int[Array, "n"],
    noise: SolidNoise,
) -> Float[Array, "n 3"]:
    """Linear reflectance at points of faces."""
    material, object_index = town.material[face], town.object_index[face]
    frames = town.object_frames.astype(np.float32)[object_index]
    c, s = np.cos(frames[:, 3]), np.sin(frames[:, 3])
    offset = points - frames[:, :3]
    local = np.stack([c * offset[:, 0] + s * offset[:, 1], c * offset[:, 1] - s * offset[:, 0], offset[:, 2]], axis=1)
    facing = np.stack(
        [c * normals[:, 0] + s * normals[:, 1], c * normals[:, 1] - s * normals[:, 0], normals[:, 2]], axis=1
    )
    fine, coarse, broad = noise.fine(points), noise.coarse(points), noise.broad(points)
    seed = town.object_seeds[object_index]
    out = np.empty((len(points), 3), np.float32)
    for index, name in enumerate(TOWN_MATERIALS):
        chosen = np.flatnonzero(material == index)
        if not len(chosen):
            continue
        grain = fine[chosen], coarse[chosen], broad[chosen]
        if name == "ground":
            out[chosen] = _ground(points[chosen], town.extent_m, *grain)
        else:
            out[chosen] = _MATERIAL_ALBEDO[name](local[chosen], facing[chosen], seed[chosen], *grain)
    return np.clip(out, 0.01, 0.95)


def _pick_color(table: Array, seed: Array, salt: int) -> Array:
    return table[(cell_random(seed, seed + salt) * len(table)).astype(int)]


def _along_wall(local: Array, facing: Array) -> Array:
    """Coordinate along a wall or a roof's eaves, in metres."""
    return np.where(np.abs(facing[:, 0]) > np.abs(facing[:, 1]), local[:, 1], local[:, 0])


def _wall(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    along, up = _along_wall(local, facing), local[:, 2]
    base = _pick_color(PLASTER_COLORS, seed, 1) * (1 + 0.10 * fine + 0.10 * coarse + 0.06 * broad)[:, None]
    stained = np.clip(0.5 * coarse + 0.35 * fine + 0.25 * (1.2 - up), 0, 0.45)[:, None]
    base = base * (1 - stained)
    storey, bay = np.floor(up / STOREY_HEIGHT_M), np.floor(along / WINDOW_BAY_M + 0.5 * cell_random(seed, seed + 3))
    v, u = up - storey * STOREY_HEIGHT_M, along - (bay - 0.5 * cell_random(seed, seed + 3)) * WINDOW_BAY_M
    kind = cell_random(seed, storey, bay)
    window = (np.abs(u - WINDOW_BAY_M / 2) < 0.5) & (np.abs(v - 1.6) < 0.75) & (kind < 0.8)
    frame = (np.abs(u - WINDOW_BAY_M / 2) < 0.64) & (np.abs(v - 1.6) < 0.9) & (kind < 0.8)
    cross = (np.abs(u - WINDOW_BAY_M / 2) < 0.05) | (np.abs(v - 1.8) < 0.05)
    pane = np.stack([0.05 + 0.1 * kind, 0.06 + 0.1 * kind, 0.08 + 0.12 * kind], axis=1)
    shutter = (np.abs(np.abs(u - WINDOW_BAY_M / 2) - 0.82) < 0.2) & (np.abs(v - 1.6) < 0.8) & (kind < 0.8)
    shutter &= cell_random(seed, seed + 5) < 0.5
    door = (storey == 0) & (np.abs(u - WINDOW_BAY_M / 2) < 0.5) & (v < 2.1) & (kind > 0.86)
    out = np.where(frame[:, None], np.array([0.72, 0.7, 0.66], np.float32), base)
    out = np.where((window & ~cross)[:, None], pane, out)
    out = np.where(
        shutter[:, None], 0.6 * _pick_color(TILE_COLORS, seed, 7) + np.array([0.02, 0.08, 0.05], np.float32), out
    )
    out = np.where(door[:, None], np.array([0.2, 0.11, 0.06], np.float32) * (1 + 0.3 * fine)[:, None], out)
    return np.where((up < 0.5)[:, None], np.array([0.3, 0.28, 0.25], np.float32) * (1 + 0.25 * fine)[:, None], out)


def _roof(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    """Tiles with moss and roof windows on the slopes, wall on the upright faces (gable ends) and below the eaves."""
    lying = facing[:, 2] > 0.2
    out = np.empty((len(local), 3), np.float32)
    rest = (local[~lying], facing[~lying], seed[~lying], fine[~lying], coarse[~lying], broad[~lying])
    out[~lying] = _wall(*rest)
    local, facing, seed, fine, coarse, broad = (part[lying] for part in (local, facing, seed, fine, coarse, broad))
    slope = local[:, 2] / np.sqrt(np.maximum(1 - facing[:, 2] ** 2, 0.02))
    row, column = np.floor(slope / 0.34), np.floor(_along_wall(local, facing) / 0.26)
    tone = cell_random(row, column, seed)
    lip = np.where(slope / 0.34 - row < 0.22, 0.72, 1.0)
    base = (
        _pick_color(TILE_COLORS, seed, 11)
        * ((0.62 + 0.75 * tone + 0.14 * fine + 0.16 * coarse + 0.1 * broad) * lip)[:, None]
    )
    moss = np.clip(1.5 * (coarse + 0.6 * broad + 0.3 * fine - 1.1), 0, 0.75)[:, None]
    base = base * (1 - moss) + np.array([0.14, 0.17, 0.06], np.float32) * moss
    light = cell_random(np.floor(slope / 2.6), np.floor(_along_wall(local, facing) / 1.9), seed) < 0.05  # roof windows
    v, u = slope % 2.6, _along_wall(local, facing) % 1.9
    light &= (np.abs(v - 1.3) < 0.55) & (np.abs(u - 0.95) < 0.4)
    out[lying] = np.where(light[:, None], np.array([0.07, 0.09, 0.12], np.float32), base)
    return out


def _slate(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    slope = local[:, 2] / np.sqrt(np.maximum(1 - facing[:, 2] ** 2, 0.02))
    tone = cell_random(
        np.floor(slope / 0.3), np.floor(_along_wall(local, facing) / 0.3 + 0.5 * (np.floor(slope / 0.3) % 2)), seed
    )
    return np.array([0.2, 0.22, 0.24], np.float32) * (0.5 + 0.8 * tone + 0.15 * fine + 0.2 * coarse)[:, None]


def _stone(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    along, up = _along_wall(local, facing), local[:, 2]
    row = np.floor(up / 0.45)
    shifted = along / 0.8 + 0.5 * (row % 2)
    tone = cell_random(row, np.floor(shifted), seed)
    joint = ((up / 0.45 - row) < 0.08) | ((shifted - np.floor(shifted)) < 0.05)
    base = np.array([0.46, 0.41, 0.33], np.float32) * (0.7 + 0.5 * tone + 0.15 * fine + 0.15 * coarse)[:, None]
    tall = (np.abs(along % 3.4 - 1.7) < 0.5) & (up > 2.2) & (up < 6.2) & (np.abs(facing[:, 2]) < 0.3) & (seed > 0)
    base = np.where(tall[:, None], np.array([0.07, 0.07, 0.10], np.float32) * (1 + 0.5 * tone)[:, None], base)
    return base * np.where(joint & ~tall, 0.55, 1.0)[:, None]


def _brick(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    tone = cell_random(np.floor(local[:, 2] / 0.15), np.floor(_along_wall(local, facing) / 0.3), seed)
    return np.array([0.36, 0.17, 0.11], np.float32) * (0.6 + 0.7 * tone + 0.2 * fine)[:, None]


def _gravel(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    sheet = cell_random(np.floor(local[:, 0] / 2.1), np.floor(local[:, 1] / 1.2), seed)
    seam = (local[:, 0] % 2.1 < 0.08) | (local[:, 1] % 1.2 < 0.08)
    tone = 0.75 + 0.25 * sheet + 0.22 * fine + 0.2 * coarse + 0.15 * broad
    return np.array([0.34, 0.33, 0.31], np.float32) * (tone * np.where(seam, 0.7, 1.0))[:, None]


def _metal(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    rib = np.where(_along_wall(local, facing) % 0.3 < 0.1, 0.75, 1.0)
    return np.array([0.45, 0.46, 0.47], np.float32) * (rib * (1 + 0.12 * coarse))[:, None]


def _lacquer(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    return _pick_color(CAR_COLORS, seed, 13) * (1 + 0.03 * coarse)[:, None]


def _glass(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    roof = facing[:, 2] > 0.9
    return np.where(roof[:, None], _pick_color(CAR_COLORS, seed, 13), np.array([0.05, 0.06, 0.07], np.float32))


def _bark(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    return np.array([0.17, 0.12, 0.08], np.float32) * (1 + 0.3 * fine)[:, None]


def _leaves(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    tint = (
        np.array([0.12, 0.19, 0.05], np.float32) + np.array([0.08, 0.03, 0.0], np.float32) * cell_random(seed)[:, None]
    )
    return tint * np.clip(1 + 0.55 * np.tanh(fine) + 0.4 * coarse, 0.2, 2.2)[:, None]


def _water(local: Array, facing: Array, seed: Array, fine: Array, coarse: Array, broad: Array) -> Array:
    """One colour: a lake has no features to match."""
    return np.broadcast_to(np.array([0.045, 0.085, 0.095], np.float32), local.shape)


def _ground(points: Array, extent_m: tuple[float, float], fine: Array, coarse: Array, broad: Array) -> Array:
    s, t = street_from_world(points[:, 0], points[:, 1])
    column, row = np.floor(s / QUARTER_SIZE_M), np.floor(t / QUARTER_SIZE_M)
    across = np.stack([np.abs(c - QUARTER_SIZE_M * np.round(c / QUARTER_SIZE_M)) for c in (s, t)])
    nearest, other = across.min(axis=0), across.max(axis=0)
    along = np.where(across[0] < across[1], t, s)
    grass = np.array([0.11, 0.16, 0.05], np.float32) * (1 + 0.3 * fine + 0.3 * coarse + 0.15 * broad)[:, None]
    dry = np.clip(0.6 * broad + 0.5 * coarse + 0.2 * fine - 0.5, 0, 0.8)[:, None]
    grass = grass * (1 - dry) + np.array([0.3, 0.25, 0.14], np.float32) * (1 + 0.25 * fine)[:, None] * dry
    slab = cell_random(np.floor(s / 1.1), np.floor(t / 1.1))
    joint = (s % 1.1 < 0.07) | (t % 1.1 < 0.07)
    paving = np.array([0.42, 0.38, 0.32], np.float32) * (0.75 + 0.4 * slab + 0.14 * fine + 0.14 * coarse)[:, None]
    paving = paving * np.where(joint, 0.65, 1.0)[:, None]
    path = np.abs(s % QUARTER_SIZE_M % 9.7 - 5.0) < 0.6  # from the pavement to the doors
    beyond = np.maximum(np.maximum(-s, s - extent_m[0]), np.maximum(-t, t - extent_m[1]))
    quay = beyond > PAVEMENT_EDGE_M
    square = is_square(column.astype(int), row.astype(int))
    out = np.where((square | path | quay)[:, None], paving, grass)
    patch = cell_random(np.floor(s / 3.1), np.floor(t / 2.3))
    asphalt = 0.13 + 0.05 * (patch < 0.12) - 0.04 * (patch > 0.9) + 0.022 * fine + 0.026 * coarse + 0.015 * broad
    crack = np.abs(coarse + 0.25 * fine) < 0.035
    asphalt = np.where(crack, 0.6, 1.0) * asphalt
    line = (nearest < 0.09) & (along % 4.0 < 2.0) & (other > PAVEMENT_EDGE_M + 2)
    zebra = (np.abs(other - PAVEMENT_EDGE_M - 1.3) < 1.1) & (np.where(across[0] < across[1], s, t) % 1.0 < 0.5)
    asphalt = np.where((line | zebra) & (fine > -1.3), 0.6 + 0.05 * fine, asphalt)
    road, kerb = nearest < ROAD_HALF_WIDTH_M, (nearest < ROAD_HALF_WIDTH_M + 0.16) & (other > ROAD_HALF_WIDTH_M)
    out = np.where((nearest < PAVEMENT_EDGE_M)[:, None], paving, out)
    out = np.where(kerb[:, None], np.float32(0.5), out)
    return np.where(road[:, None], asphalt[:, None] * np.array([1.0, 0.99, 0.96], np.float32), out).astype(np.float32)


_MATERIAL_ALBEDO = {
    "wall": _wall,
    "roof": _roof,
    "slate": _slate,
    "stone": _stone,
    "brick": _brick,
    "gravel": _gravel,
    "metal": _metal,
    "lacquer": _lacquer,
    "glass": _glass,
    "bark": _bark,
    "leaves": _leaves,
    "water": _water,
}
