"""Which photos see the same surface, from the SfM tracks they share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array

from quoin.pipeline.geometry.cameras import centers_world, project

Array = np.ndarray
BEST_ANGLE_DEG, ANGLE_FALL_DEG = 15.0, 12.0
CANDIDATES = 200  # photos that each is looked at with: those that share most with it


def seen_matrix(n_photos: int, n_points: int, photo: Int[Array, "t"], point: Int[Array, "t"]) -> csr_array:
    """Sparse [n_photos, n_points], 1 where a photo observes a point: as large as the observations, not their square."""
    seen = coo_array((np.ones(len(photo), np.float32), (photo, point)), shape=(n_photos, n_points)).tocsr()
    seen.sum_duplicates()
    seen.data[:] = 1.0
    return seen


def points_of(seen: csr_array, photos: Int[Array, "k"] | list[int]) -> Int[Array, "m"]:
    """Points that any of ``photos`` observes, sorted."""
    rows = [seen.indices[seen.indptr[photo] : seen.indptr[photo + 1]] for photo in photos]
    return np.unique(np.concatenate(rows)).astype(np.int64) if rows else np.zeros(0, np.int64)


def candidates(seen: csr_array, most: int = CANDIDATES) -> list[Int[Array, "_"]]:
    """For each photo the others that may show what it shows, sorted: all where there are few.

    Else those that share points with it, most points first, then those that share photos with it, up to ``most``.
    """
    count = seen.shape[0]
    if count <= most + 1:
        return [np.delete(np.arange(count), a) for a in range(count)]
    shared = csr_array(seen @ seen.T)
    linked = shared.astype(bool).astype(np.float32)
    out = []
    for a in range(count):
        row = slice(shared.indptr[a], shared.indptr[a + 1])
        partners, points = shared.indices[row], shared.data[row]
        score = np.zeros(count, np.float32)
        second = csr_array(linked[[a]] @ linked)
        score[second.indices] = second.data / (1.0 + count)  # of photos in common: less than a point
        score[partners] += points
        score[a] = 0.0
        best = np.flatnonzero(score)
        if len(best) > most:
            best = best[np.argsort(-score[best], kind="stable")[:most]]
        out.append(np.sort(best))
    return out


def source_photos(
    cam_from_world: Float[Array, "k 3 4"],
    intrinsics: Float[Array, "k 4"],
    sizes: Int[Array, "k 2"],
    seen: csr_array,
    points_world: Float[Array, "p 3"],
    n_sources: int,
    max_points: int = 1000,
) -> Int[Array, "k n_sources"]:
    """For each photo the photos to compare it with: those that show many of its points under a useful angle; else -1.

    A point counts fully under BEST_ANGLE_DEG, less where the baseline is too short to say anything or too wide to match
    (the criterion of MVSNet's and OpenMVS's view selection); a quarter of that where it is in the picture but was not
    matched there, for a surface may be compared from farther aside than SIFT still recognises it. ``seen`` [k, p] is
    a ``seen_matrix``.
    """
    out = np.full((len(cam_from_world), n_sources), -1)
    centres = centers_world(cam_from_world)
    by_point = seen.T.tocsr()
    for a, others in enumerate(candidates(seen)):
        mine = points_of(seen, [a])
        mine = mine[:: max(1, len(mine) // max_points)]
        points = points_world[mine]
        matched = by_point[mine][:, others].toarray() > 0
        counts = np.where(matched.T, 1.0, 0.25)
        score = np.zeros(len(others))
        from_a = _unit(points - centres[a])
        for number, b in enumerate(others.tolist()):
            pixels, depth = project(cam_from_world[b], intrinsics[b], points)
            inside = (depth > 0) & np.all((pixels >= 0) & (pixels < sizes[b]), axis=1)
            cosine = (from_a * _unit(points - centres[b])).sum(axis=1)
            angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
            over = np.maximum(angle - BEST_ANGLE_DEG, 0.0) / ANGLE_FALL_DEG
            useful = np.minimum(1.0, angle / BEST_ANGLE_DEG) ** 2 * np.exp(-0.5 * over**2)
            score[number] = (useful * inside * counts[number]).sum()
        order = np.argsort(-score)[:n_sources]
        chosen = order[score[order] > 1.0]
        out[a, : len(chosen)] = others[chosen]
    return out


def _unit(vectors: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
