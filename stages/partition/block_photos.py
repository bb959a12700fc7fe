"""Which photos a block trains with: what share of each shows it, and which few of them show all of it well."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray

CELLS_PER_EDGE = 24  # a photo is looked at in so many cells along its long edge
TARGET_VIEWS_PER_POINT = (
    6  # photos every point of a block should be seen by, before any photo is taken for other reasons
)
MIN_TRACKS = 6  # a photo that shows fewer points of a block does not show it,
MIN_TRACK_SHARE = 0.05  # unless they are so many of its points
MAX_COVER_POINTS = 20_000  # points considered when photos are chosen
MIN_FOOTPRINT_VOXELS = (
    0.25  # voxels a pixel covers where a photo is nearest to the surface: a finer one tells nothing more
)
NEAREST_SHARE = 0.1  # share of a photo's points that are about as near


def select_held_out(names: list[str], every: int) -> Int[Array, "h"]:
    """Photos 0, ``every``, 2 · ``every`` ... in the order of their names; none where ``every`` is 0."""
    by_name = np.array(sorted(range(len(names)), key=lambda i: names[i]), np.int64)
    return np.sort(by_name[::every]) if every else by_name[:0]


def photo_cells(
    track_xy: Float[Array, "t 2"], track_photo: Int[Array, "t"], sizes: Int[Array, "n 2"]
) -> tuple[Int[Array, "t"], Int[Array, "c"]]:
    """The cell 0..c-1 (a small square of a photo) of every observation, and the photo of every cell."""
    edge = np.maximum(sizes.max(axis=1), 1)[track_photo][:, None] / CELLS_PER_EDGE
    cell = np.clip((track_xy / edge).astype(np.int64), 0, CELLS_PER_EDGE - 1)
    code = (track_photo.astype(np.int64) * CELLS_PER_EDGE + cell[:, 1]) * CELLS_PER_EDGE + cell[:, 0]
    codes, number = np.unique(code, return_inverse=True)
    return number, codes // (CELLS_PER_EDGE * CELLS_PER_EDGE)


def visible_shares(
    cell: Int[Array, "t"], cell_photo: Int[Array, "c"], n_cells: Int[Array, "n"], photos: Int[Array, "n"]
) -> Float[Array, "n"]:
    """Share of each of ``photos`` (sorted) that shows the block: of its ``n_cells`` with points, those of ``cell``.

    ``cell`` are the cells of the block's observations, by these photos only.
    """
    photo_row = np.searchsorted(photos, cell_photo[np.unique(cell)])
    return np.bincount(photo_row, minlength=len(photos)) / np.maximum(n_cells, 1)


def pyramid_levels(
    photo: Int[Array, "t"], footprint_m: Float[Array, "t"], voxel_size_m: float, max_level: int, n_photos: int
) -> Int[Array, "n"]:
    """How often each photo may be halved (at most ``max_level``) before its pixels are too large; 0 where unseen."""
    order = np.lexsort((footprint_m, photo))
    count = np.bincount(photo, minlength=n_photos)
    at = np.cumsum(count) - count + (NEAREST_SHARE * count).astype(np.int64)
    has_points = count > 0
    nearest = np.full(n_photos, np.inf)
    nearest[has_points] = footprint_m[order][at[has_points]]
    return np.clip(
        np.floor(np.log2(np.maximum(MIN_FOOTPRINT_VOXELS * voxel_size_m / nearest, 1.0))), 0, max_level
    ).astype(np.int64)


def select_photos(
    photo: Int[Array, "t"],
    point: Int[Array, "t"],
    footprint_m: Float[Array, "t"],
    share: Float[Array, "n"],
    *,
    max_photos: int,
    seed: int,
) -> Int[Array, "k"]:
    """Photos of a block, most useful first, at most ``max_photos``, from its observations (photo, point, pixel size).

    Greedy cover: every point wants TARGET_VIEWS_PER_POINT photos, and an observation is worth its sharpness relative to
    the sharpest of its point. Then photos follow by all they show, times the share of them that shows the block.
    """
    from scipy.sparse import csr_array

    tracks = np.bincount(photo, minlength=len(share))
    points, row = np.unique(point, return_inverse=True)
    candidates = np.flatnonzero(tracks >= max(1, min(MIN_TRACKS, MIN_TRACK_SHARE * len(points))))
    if len(candidates) == 0:
        candidates = np.flatnonzero(tracks > 0)
    sharpest = np.full(len(points), np.inf)
    np.minimum.at(sharpest, row, footprint_m)
    worth = sharpest[row] / np.maximum(footprint_m, 1e-12)
    total = np.bincount(photo, worth, len(share)) * share

    picked = np.arange(len(points))
    if len(points) > MAX_COVER_POINTS:
        picked = np.random.default_rng(seed).choice(len(points), MAX_COVER_POINTS, replace=False)
    number = np.full(len(points), -1)
    number[picked] = np.arange(len(picked))
    kept = (number[row] >= 0) & np.isin(photo, candidates)
    column = np.searchsorted(candidates, photo[kept])
    matrix = csr_array((worth[kept], (column, number[row[kept]])), shape=(len(candidates), len(picked)))

    missing_views = np.full(len(picked), float(TARGET_VIEWS_PER_POINT))
    is_left = np.ones(len(candidates), bool)
    chosen: list[int] = []
    while len(chosen) < min(max_photos, len(candidates)):
        gain = np.where(is_left, matrix @ (missing_views > 0).astype(np.float64), -1.0)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        is_left[best] = False
        missing_views[matrix.indices[matrix.indptr[best] : matrix.indptr[best + 1]]] -= 1
    rest = np.flatnonzero(is_left)
    rest = rest[np.argsort(-total[candidates[rest]], kind="stable")]
    return candidates[np.concatenate([chosen, rest]).astype(np.int64)][:max_photos]
