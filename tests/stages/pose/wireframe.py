"""Straight lines of made-up rooms as cameras inside see them: prisms over a polygon, with doors, and clutter."""

from __future__ import annotations

import numpy as np

from quoin.pipeline.geometry.cameras import look_at, to_camera

SIZE = np.array([800, 600])
INTRINSICS = np.array([600.0, 600.0, 400.0, 300.0])


def prism(corners: np.ndarray, rng: np.random.Generator, height: float = 2.6, doors: int = 3) -> np.ndarray:
    """Lines [s, 2, 3] of a room: floor, ceiling, corners, and on each wall upright rectangles (doors, pictures)."""
    out = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        for z in (0.0, height):
            out.append([[*a, z], [*b, z]])
        out.append([[*a, 0.0], [*a, height]])
        for _ in range(doors):
            left, right = np.sort(rng.uniform(0.05, 0.95, 2))
            low, high = np.sort(rng.uniform(0.05, 0.95, 2)) * height
            p, q = a + left * (b - a), a + right * (b - a)
            frame = [[*p, low], [*q, low], [*q, high], [*p, high]]
            out += [[frame[i], frame[(i + 1) % 4]] for i in range(4)]
    return np.array(out)


def polygon(sides: int, radius: float = 3.0) -> np.ndarray:
    angles = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def box(rng: np.random.Generator) -> np.ndarray:
    """Corners of a room of some metres."""
    w, d = rng.uniform(2, 5, 2)
    return np.array([[-w, -d], [w, -d], [w, d], [-w, d]])


def cameras_inside(count: int, rng: np.random.Generator, reach: float = 1.0, tilt_deg: float = 3.0) -> np.ndarray:
    """cam_from_world of cameras at eye height that look all round, rolled and pitched by some degrees."""
    out = []
    for _ in range(count):
        center = np.array([*rng.uniform(-reach, reach, 2), rng.uniform(1.2, 1.8)])
        yaw, pitch, roll = rng.uniform(0, 2 * np.pi), np.radians(rng.normal(-5, 8)), np.radians(rng.normal(0, tilt_deg))
        ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        c, s = np.cos(roll), np.sin(roll)
        out.append(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ look_at(center, center + ahead))
    return np.array(out)


def seen(
    lines: np.ndarray, cam_from_world: np.ndarray, rng: np.random.Generator, noise_px: float = 0.5, clutter: float = 0.5
) -> np.ndarray:
    """Segments [n, 2, 2] in pixels: what of each line a camera sees, with noise, and random ones (a share of all)."""
    ends = to_camera(cam_from_world, lines.reshape(-1, 3)).reshape(-1, 2, 3)
    ends = clipped(ends[:, :, 2] - 0.05, ends)
    xy = ends[..., :2] / ends[..., 2:] * INTRINSICS[:2] + INTRINSICS[2:]
    for axis in (0, 1):
        xy = clipped(xy[..., axis], xy)
        xy = clipped(SIZE[axis] - xy[..., axis], xy)
    xy = xy[np.linalg.norm(xy[:, 1] - xy[:, 0], axis=1) > 25]
    extra = round(len(xy) * clutter / (1 - clutter))
    return np.concatenate([xy + rng.normal(0, noise_px, xy.shape), strewn(extra, rng)])


def clipped(inside: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The parts of segments ``ends`` [n, 2, d] where ``inside`` [n, 2], linear along each, is above 0."""
    kept = (inside > 0).any(axis=1)
    inside, ends = inside[kept], ends[kept]
    share = inside[:, 0] / np.where(inside[:, 0] == inside[:, 1], 1.0, inside[:, 0] - inside[:, 1])
    border = ends[:, 0] + share[:, None] * (ends[:, 1] - ends[:, 0])
    return np.where(inside[..., None] > 0, ends, border[:, None])


def strewn(count: int, rng: np.random.Generator) -> np.ndarray:
    """Segments that lie anyhow."""
    middle, angle = rng.uniform(0, 1, (count, 2)) * SIZE, rng.uniform(0, np.pi, count)
    half = rng.uniform(12, 80, count)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.stack([middle - half, middle + half], axis=1)
