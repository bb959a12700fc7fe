"""Which photos see the same surface, from the SfM tracks they share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray


def seen_matrix(
    n_photos: int, n_points: int, photo: Int[Array, "t"], point: Int[Array, "t"]
) -> Bool[Array, "n_photos n_points"]:
    """True where a photo observes a point."""
    seen = np.zeros((n_photos, n_points), bool)
    seen[photo, point] = True
    return seen


def source_photos(
    centres: Float[Array, "k 3"],
    seen: Bool[Array, "k p"],
    points: Float[Array, "p 3"],
    n_sources: int,
    max_angle_deg: float = 50.0,
    best_angle_deg: float = 15.0,
) -> Int[Array, "k n_sources"]:
    """For each photo the photos to compare it with: many shared points under a useful angle; -1 where fewer.

    A shared point counts fully from ``best_angle_deg`` on, less where the baseline is too short to say anything, and
    not at all where the angle is too wide to match (the criterion of COLMAP's and OpenMVS's view selection).
    """
    n = len(centres)
    score = np.zeros((n, n))
    points = points.astype(np.float32)
    for a in range(n):
        mine = np.flatnonzero(seen[a])
        rays = _unit(points[mine] - centres[a])
        for b in range(a + 1, n):
            both = seen[b, mine]
            if both.sum() < 5:
                continue
            cosine = (rays[both] * _unit(points[mine[both]] - centres[b])).sum(axis=1)
            angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
            useful = np.minimum(1.0, angle / best_angle_deg) ** 2 * (angle < max_angle_deg)
            score[a, b] = score[b, a] = useful.sum()
    order = np.argsort(-score, axis=1)[:, :n_sources]
    chosen = np.where(np.take_along_axis(score, order, axis=1) > 1.0, order, -1)
    out = np.full((n, n_sources), -1)
    out[:, : chosen.shape[1]] = chosen
    return out


def _unit(vectors: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
