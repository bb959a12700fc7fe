"""Which photos see the same surface, from the SfM tracks they share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array

from quoin.pipeline.geometry.cameras import centers_world, is_in_image, normalize, project

Array = np.ndarray
BEST_ANGLE_DEG, ANGLE_SIGMA_DEG = 15.0, 12.0
MAX_COVISIBLE_PHOTOS = 200  # that a photo is compared with: those that share most points with it
MAX_PHOTO_POINTS = 1000  # of a photo, that its sources are chosen by


def observation_matrix(n_photos: int, n_points: int, photo: Int[Array, "t"], point: Int[Array, "t"]) -> csr_array:
    """Sparse [n_photos, n_points], 1 where a photo observes a point: as large as the observations, not their square."""
    observations = coo_array((np.ones(len(photo), np.float32), (photo, point)), shape=(n_photos, n_points)).tocsr()
    observations.sum_duplicates()
    observations.data[:] = 1.0
    return observations


def observed_points(observations: csr_array, photos: Int[Array, "k"] | list[int]) -> Int[Array, "m"]:
    """Points that any of ``photos`` observes, sorted."""
    rows = [observations.indices[observations.indptr[photo] : observations.indptr[photo + 1]] for photo in photos]
    return np.unique(np.concatenate(rows)).astype(np.int64) if rows else np.zeros(0, np.int64)


def covisible_photos(observations: csr_array, max_photos: int = MAX_COVISIBLE_PHOTOS) -> list[Int[Array, "_"]]:
    """For each photo the others that may show what it shows, sorted: all where there are few.

    Else those that share points with it, most points first, then those that share photos with it, up to ``max_photos``.
    """
    count = observations.shape[0]
    if count <= max_photos + 1:
        return [np.delete(np.arange(count), a) for a in range(count)]
    shared = csr_array(observations @ observations.T)
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
        if len(best) > max_photos:
            best = best[np.argsort(-score[best], kind="stable")[:max_photos]]
        out.append(np.sort(best))
    return out


def source_photos(
    cam_from_world: Float[Array, "k 3 4"],
    intrinsics: Float[Array, "k 4"],
    sizes: Int[Array, "k 2"],
    observations: csr_array,
    points_world: Float[Array, "p 3"],
    n_sources: int,
) -> Int[Array, "k n_sources"]:
    """For each photo the photos to compare it with: those that show many of its points under a useful angle; else -1.

    A point counts fully under BEST_ANGLE_DEG, less where the baseline is too short to say anything or too wide to match
    (the criterion of MVSNet's and OpenMVS's view selection); a quarter of that where it is in the picture but was not
    matched there, for a surface may be compared from farther aside than SIFT still recognises it. ``observations`` [k,
    p] is a ``observation_matrix``.
    """
    out = np.full((len(cam_from_world), n_sources), -1)
    centers = centers_world(cam_from_world)
    by_point = observations.T.tocsr()
    for a, neighbors in enumerate(covisible_photos(observations)):
        point_index = observed_points(observations, [a])
        point_index = point_index[:: max(1, len(point_index) // MAX_PHOTO_POINTS)]
        points = points_world[point_index]
        matched = by_point[point_index][:, neighbors].toarray() > 0
        counts = np.where(matched.T, 1.0, 0.25)
        score = np.zeros(len(neighbors))
        from_a = normalize(points - centers[a])
        for number, b in enumerate(neighbors.tolist()):
            pixels, depth = project(cam_from_world[b], intrinsics[b], points)
            inside = is_in_image(pixels, depth, sizes[b])
            cosine = (from_a * normalize(points - centers[b])).sum(axis=1)
            angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
            over = np.maximum(angle - BEST_ANGLE_DEG, 0.0) / ANGLE_SIGMA_DEG
            useful = np.minimum(1.0, angle / BEST_ANGLE_DEG) ** 2 * np.exp(-0.5 * over**2)
            score[number] = (useful * inside * counts[number]).sum()
        order = np.argsort(-score)[:n_sources]
        chosen = order[score[order] > 1.0]
        out[a, : len(chosen)] = neighbors[chosen]
    return out
