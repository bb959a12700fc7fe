"""Photos of a block: the share of each that shows the block, and a small set that covers it well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


@dataclass(frozen=True)
class SelectionParams:
    """Tuned numbers of choosing a block's photos."""

    cells_per_edge: int = 24  # square cells along the longest edge of a photo
    target_views_per_point: int = 6  # photos that should see every point of a block
    min_tracks: int = 6  # points of a block in a photo that shows it
    min_track_share: float = 0.05  # of the block's points in a photo that shows it, where that is fewer than min_tracks
    max_cover_points: int = 20_000  # of a block, that the choice considers
    min_footprint_voxels: float = 0.25  # size of a pixel on the nearest surface; a finer pyramid level adds nothing
    nearest_share: float = 0.1  # of a photo's points: this quantile of their pixel sizes is that of the nearest surface


SELECTION_PARAMS = SelectionParams()


def select_held_out(names: list[str], every: int) -> Int[Array, "h"]:
    """Photos 0, ``every``, 2 · ``every`` ... in the order of their names; none where ``every`` is 0."""
    by_name = np.array(sorted(range(len(names)), key=lambda i: names[i]), np.int64)
    return np.sort(by_name[::every]) if every else by_name[:0]


def photo_cells(
    track_xy: Float[Array, "t 2"], track_photo: Int[Array, "t"], sizes: Int[Array, "n 2"]
) -> tuple[Int[Array, "t"], Int[Array, "c"]]:
    """The cell 0..c-1 (a small square of a photo) of every observation, and the photo of every cell."""
    edge = np.maximum(sizes.max(axis=1), 1)[track_photo][:, None] / SELECTION_PARAMS.cells_per_edge
    cell = np.clip((track_xy / edge).astype(np.int64), 0, SELECTION_PARAMS.cells_per_edge - 1)
    code = (
        track_photo.astype(np.int64) * SELECTION_PARAMS.cells_per_edge + cell[:, 1]
    ) * SELECTION_PARAMS.cells_per_edge + cell[:, 0]
    codes, number = np.unique(code, return_inverse=True)
    return number, codes // (SELECTION_PARAMS.cells_per_edge * SELECTION_PARAMS.cells_per_edge)


def visible_shares(
    cell: Int[Array, "t"], cell_photo: Int[Array, "c"], n_cells: Int[Array, "n"], photos: Int[Array, "n"]
) -> Float[Array, "n"]:
    """Share of each photo that shows the block: of its ``n_cells`` cells with points, those among ``cell``.

    ``photos`` are sorted; ``cell`` are the cells of the block's observations in these photos.
    """
    photo_row = np.searchsorted(photos, cell_photo[np.unique(cell)])
    return np.bincount(photo_row, minlength=len(photos)) / np.maximum(n_cells, 1)


def pyramid_levels(
    photo: Int[Array, "t"], footprint_m: Float[Array, "t"], voxel_size_m: float, max_level: int, n_photos: int
) -> Int[Array, "n"]:
    """Pyramid level of each photo, 0..``max_level``: the coarsest that is fine enough; 0 without observations."""
    order = np.lexsort((footprint_m, photo))
    count = np.bincount(photo, minlength=n_photos)
    at = np.cumsum(count) - count + (SELECTION_PARAMS.nearest_share * count).astype(np.int64)
    has_points = count > 0
    nearest = np.full(n_photos, np.inf)
    nearest[has_points] = footprint_m[order][at[has_points]]
    return np.clip(
        np.floor(np.log2(np.maximum(SELECTION_PARAMS.min_footprint_voxels * voxel_size_m / nearest, 1.0))),
        0,
        max_level,
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
    """The ``max_photos`` most useful photos of a block, from its observations (photo, point, pixel size).

    Greedy set cover: every point should have ``target_views_per_point`` photos, and an observation counts by its
    sharpness relative to the sharpest of its point. The other photos follow by the sum of their observations times
    ``share``, the part of each that shows the block.
    """
    from scipy.sparse import csr_array

    tracks = np.bincount(photo, minlength=len(share))
    points, row = np.unique(point, return_inverse=True)
    candidates = np.flatnonzero(
        tracks >= max(1, min(SELECTION_PARAMS.min_tracks, SELECTION_PARAMS.min_track_share * len(points)))
    )
    if len(candidates) == 0:
        candidates = np.flatnonzero(tracks > 0)
    sharpest = np.full(len(points), np.inf)
    np.minimum.at(sharpest, row, footprint_m)
    worth = sharpest[row] / np.maximum(footprint_m, 1e-12)
    total = np.bincount(photo, worth, len(share)) * share

    picked = np.arange(len(points))
    if len(points) > SELECTION_PARAMS.max_cover_points:
        picked = np.random.default_rng(seed).choice(len(points), SELECTION_PARAMS.max_cover_points, replace=False)
    number = np.full(len(points), -1)
    number[picked] = np.arange(len(picked))
    kept = (number[row] >= 0) & np.isin(photo, candidates)
    column = np.searchsorted(candidates, photo[kept])
    matrix = csr_array((worth[kept], (column, number[row[kept]])), shape=(len(candidates), len(picked)))

    missing_views = np.full(len(picked), float(SELECTION_PARAMS.target_views_per_point))
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
