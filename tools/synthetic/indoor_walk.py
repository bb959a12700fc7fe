"""Cameras of the room: a slow walk along the walls, looking across the room."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import look_at
from quoin.tools.synthetic.rooms import Room

Array = np.ndarray
EYE_HEIGHT_RANGE_M = (1.3, 1.7)


def indoor_walk_cameras(room: Room, n_photos: int, seed: int) -> Float[Array, "n 3 4"]:
    """cam_from_world of the photos, in the order of one walk around ``room.path``.

    Each looks across the middle of the walk to the other side, alternately more to the left or to the right and a
    little down; position, height, pitch and roll vary as in handheld photos. With 40 photos, neighbours stand about
    30 cm apart.
    """
    rng = np.random.default_rng([seed, 3])
    closed = np.concatenate([room.path, room.path[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    middle = np.stack([np.interp(np.linspace(0, along[-1], 200), along, closed[:, k]) for k in (0, 1)], 1).mean(axis=0)
    poses = []
    for index in range(n_photos):
        at = (index + rng.uniform(-0.2, 0.2)) / n_photos % 1.0
        place = np.array([np.interp(at * along[-1], along, closed[:, k]) for k in (0, 1)]) + rng.normal(0, 0.03, 2)
        ahead = middle - place
        yaw = np.arctan2(ahead[1], ahead[0]) + np.radians(22 * np.sin(2 * np.pi * 5 * at) + rng.normal(0, 4))
        pitch, roll = np.radians(rng.normal(-5, 4)), np.radians(rng.normal(0, 1.5))
        forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        aside = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        center = np.array([*place, rng.uniform(*EYE_HEIGHT_RANGE_M)])
        poses.append(look_at(center, center + forward, np.array([0.0, 0, 1]) + np.tan(roll) * aside))
    return np.stack(poses)
