"""Where the photographer stands: an irregular walk around the landmark at eye height; some raised, some close."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import center_world, look_at
from quoin.tools.synthetic.landmark import landmark_ground_height_m

Array = np.ndarray
TEMPLE_HALF_SIZE_M = np.array([4.2, 4.9])  # half the ground plan of the temple, with room to stand beside it


def outdoor_walk_cameras(n_photos: int, seed: int, pitch_deg: float = 0.0) -> Float[Array, "n 3 4"]:
    """cam_from_world of the photos: about 65 % at eye height, 25 % raised to 4.5–9 m, 10 % close to the steps.

    Each group goes once around; distance, height, aim and roll vary as in handheld photos. From 30 photos on,
    neighbours at eye height are near enough (20 degrees) for SIFT to match. ``pitch_deg`` turns every camera up.
    """
    rng = np.random.default_rng([seed, 3])
    n_raised, n_close = round(0.25 * n_photos), round(0.1 * n_photos)
    groups = [("eye", n_photos - n_raised - n_close), ("raised", n_raised), ("close", n_close)]
    poses = []
    for kind, count in groups:
        for i in range(count):
            angle = 2 * np.pi * (i + rng.uniform(-0.15, 0.15)) / count - np.pi / 2
            away, height, aim = {
                "eye": (rng.uniform(10.2, 13.2), 1.6 + rng.uniform(-0.15, 0.2), 3.1),
                "raised": (rng.uniform(9.5, 12.5), rng.uniform(4.5, 9.0), 2.6),
                "close": (rng.uniform(8.2, 9.2), rng.uniform(1.5, 2.2), 2.6),
            }[kind]
            x, y = away * np.cos(angle), away * np.sin(angle)
            sideways = rng.uniform(-1.0, 1.0) * (2.2 if kind == "close" else 1.2)
            target = [-sideways * np.sin(angle), sideways * np.cos(angle), aim + rng.uniform(-0.4, 0.4)]
            center = [x, y, height + float(landmark_ground_height_m(np.array(x), np.array(y)))]
            roll = rng.normal(0, 0.02)
            up = np.array([-np.sin(angle) * roll, np.cos(angle) * roll, 1.0])
            poses.append(look_at(np.array(center), np.array(target), up))
    c, s = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    up_from_level = np.array([[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]])  # camera axes: x right, y down, z ahead
    return (up_from_level @ np.stack(poses))[rng.permutation(n_photos)]


def sample_passers_by(cam_from_world: Float[Array, "3 4"], rng: np.random.Generator) -> Float[Array, "n 2"]:
    """Positions (x, y) of up to 4 people in front of the camera, not on the temple's steps."""
    return sample_standing_places(cam_from_world, 12, 3.0, rng)[: rng.integers(1, 5)]


def sample_standing_places(
    cam_from_world: Float[Array, "3 4"], n: int, nearest_m: float, rng: np.random.Generator
) -> Float[Array, "k 2"]:
    """Up to ``n`` positions (x, y) from ``nearest_m`` to 8 m in front of the camera, none on the temple's steps."""
    center = center_world(cam_from_world)
    forward = cam_from_world[2, :2] / np.linalg.norm(cam_from_world[2, :2])
    ahead, aside = rng.uniform(nearest_m, 8.0, n), rng.uniform(-0.4, 0.4, n)
    right = np.array([forward[1], -forward[0]])
    spots = center[:2] + ahead[:, None] * (forward + aside[:, None] * right)
    return spots[np.any(np.abs(spots) > TEMPLE_HALF_SIZE_M, axis=1)]
