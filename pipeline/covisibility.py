"""Which photos see the same surface, from the SfM tracks they share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from pipeline.cameras import centers_world, project

Array = np.ndarray
BEST_ANGLE_DEG, ANGLE_FALL_DEG = 15.0, 12.0


def seen_matrix(
    n_photos: int, n_points: int, photo: Int[Array, "t"], point: Int[Array, "t"]
) -> Bool[Array, "n_photos n_points"]:
    """True where a photo observes a point."""
    seen = np.zeros((n_photos, n_points), bool)
    seen[photo, point] = True
    return seen


def source_photos(
    cam_from_world: Float[Array, "k 3 4"],
    intrinsics: Float[Array, "k 4"],
    sizes: Int[Array, "k 2"],
    seen: Bool[Array, "k p"],
    points_world: Float[Array, "p 3"],
    n_sources: int,
    max_points: int = 1000,
) -> Int[Array, "k n_sources"]:
    """For each photo the photos to compare it with: those that show many of its points under a useful angle; else -1.

    A point counts fully under BEST_ANGLE_DEG, less where the baseline is too short to say anything or too wide to match
    (the criterion of MVSNet's and OpenMVS's view selection); a quarter of that where it is in the picture but was not
    matched there, for a surface may be compared from farther aside than SIFT still recognises it.
    """
    out = np.full((len(cam_from_world), n_sources), -1)
    centres = centers_world(cam_from_world)
    for a in range(len(cam_from_world)):
        mine = np.flatnonzero(seen[a])
        mine = mine[:: max(1, len(mine) // max_points)]
        points = points_world[mine]
        counts = np.where(seen[:, mine], 1.0, 0.25)
        score = np.zeros(len(centres))
        from_a = _unit(points - centres[a])
        for b in range(len(centres)):
            pixels, depth = project(cam_from_world[b], intrinsics[b], points)
            inside = (depth > 0) & np.all((pixels >= 0) & (pixels < sizes[b]), axis=1)
            cosine = (from_a * _unit(points - centres[b])).sum(axis=1)
            angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
            over = np.maximum(angle - BEST_ANGLE_DEG, 0.0) / ANGLE_FALL_DEG
            useful = np.minimum(1.0, angle / BEST_ANGLE_DEG) ** 2 * np.exp(-0.5 * over**2)
            score[b] = (useful * inside * counts[b]).sum()
        score[a] = 0.0
        order = np.argsort(-score)[:n_sources]
        chosen = order[score[order] > 1.0]
        out[a, : len(chosen)] = chosen
    return out


def _unit(vectors: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
