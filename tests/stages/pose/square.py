"""A house with two equal facades on a bare square before distinct houses, rendered like the corner of ``room``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quoin.pipeline.geometry.cameras import look_at
from quoin.stages.pose.colmap.camera import Camera
from tests.stages.pose.room import _directions, texture

LENS = Camera("SIMPLE_RADIAL", 400, 300, (330.0, 200.0, 150.0, 0.0))
Point = tuple[float, float, float]


class Wall(NamedTuple):
    """A parallelogram from ``corner`` along ``right`` and ``up``, with texture ``seed`` over ``span`` units."""

    corner: Point
    right: Point
    up: Point
    seed: int
    span: float
    contrast: float = 1.0


def square() -> list[Wall]:
    """The back of the house is its front turned by half a turn, with porch and texture; its sides differ."""
    w, d, h, away = 2.4, 2.0, 2.6, 22.0
    front = [Wall((-w, -d, 0), (2 * w, 0, 0), (0, 0, h), 1001, 8.0)]
    for seed, (x0, x1, top) in ((1700, (-2.0, -0.9, 1.9)), (1710, (0.5, 1.9, 1.3))):
        y = -d - 0.9
        front += [
            Wall((x0, y, 0), (x1 - x0, 0, 0), (0, 0, top), seed, 6.0),
            Wall((x0, -d, 0), (0, -0.9, 0), (0, 0, top), seed + 1, 6.0),
            Wall((x1, y, 0), (0, 0.9, 0), (0, 0, top), seed + 2, 6.0),
            Wall((x0, y, top), (x1 - x0, 0, 0), (0, 0.9, 0), seed + 3, 6.0),
        ]
    back = [
        wall._replace(corner=_turned(wall.corner), right=_turned(wall.right), up=_turned(wall.up)) for wall in front
    ]
    sides = [
        Wall((w, -d, 0), (0, 2 * d, 0), (0, 0, h), 1002, 8.0),
        Wall((-w, d, 0), (0, -2 * d, 0), (0, 0, h), 1003, 8.0),
    ]
    flat = [
        Wall((-w, -d, h), (2 * w, 0, 0), (0, 2 * d, 0), 1004, 8.0),
        Wall((-away, -away, 0), (2 * away, 0, 0), (0, 2 * away, 0), 1005, 8.0, 0.35),
    ]
    angles = np.linspace(0, 2 * np.pi, 13)
    x, y = away * np.cos(angles), away * np.sin(angles)
    around = [
        Wall((x[k + 1], y[k + 1], 0), (x[k] - x[k + 1], y[k] - y[k + 1], 0), (0, 0, 9.0), 1300 + k, 36.0)
        for k in range(12)
    ]
    return [*front, *back, *sides, *flat, *around]


def _turned(p: Point) -> Point:
    return -p[0], -p[1], p[2]


def cameras_all_around(count: int) -> np.ndarray:
    """cam_from_world [count, 3, 4] on an ellipse around the house, roughly at its middle."""
    rng = np.random.default_rng(0)
    angles = np.arange(count) * 2 * np.pi / count
    heights = 1.8 + rng.uniform(-0.3, 0.6, count)
    centers = np.stack([9.2 * np.cos(angles), 8.0 * np.sin(angles), heights], axis=1)
    return np.array([look_at(c, np.array([0, 0, 0.9]) + rng.uniform(-0.3, 0.3, 3)) for c in centers])


def render(cam_from_world: np.ndarray, walls: list[Wall], factor: int = 2) -> np.ndarray:
    """The walls before a pale sky, uint8 [H, W, 3]."""
    rays = _directions(LENS, factor) @ cam_from_world[:, :3]
    origin = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    best, color = np.full(len(rays), np.inf), np.tile([170.0, 190.0, 220.0], (len(rays), 1))
    for wall in walls:
        corner, right, up = (np.array(v, float) for v in wall[:3])
        normal = np.cross(right, up)
        facing = rays @ normal
        depth = (corner - origin) @ normal / np.where(np.abs(facing) < 1e-9, 1e-9, facing)
        hit = origin + rays * depth[:, None] - corner
        at = np.stack([hit @ right / (right @ right), hit @ up / (up @ up)], axis=1)
        mine = (depth > 1e-6) & (depth < best) & (at >= 0).all(axis=1) & (at <= 1).all(axis=1)
        lengths = np.array([np.linalg.norm(right), np.linalg.norm(up)])
        color[mine] = 128 + wall.contrast * (_looked_up(wall.seed, at[mine] * lengths / wall.span) - 128)
        best[mine] = depth[mine]
    shape = (LENS.height, factor, LENS.width, factor, 3)
    return np.clip(color.reshape(shape).mean(axis=(1, 3)), 0, 255).astype(np.uint8)


def _looked_up(seed: int, at: np.ndarray) -> np.ndarray:
    image = texture(seed)
    spot = at % 1.0 * (len(image) - 1.001)
    low = spot.astype(int)
    part = spot - low
    value = np.zeros((len(at), 3))
    for du in (0, 1):
        for dv in (0, 1):
            weight = np.abs(1 - du - part[:, 0]) * np.abs(1 - dv - part[:, 1])
            value += weight[:, None] * image[low[:, 0] + du, low[:, 1] + dv]
    return value
