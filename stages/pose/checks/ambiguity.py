"""Pairs of photos that a model puts beside each other although they show different things (doppelgangers).

Two facades that look the same match, and photos of one are laid over those of the other, with small residuals. What
gives it away is what does *not* match. Seen from nearly the same place, two photos should show the same points
everywhere; here the facade agrees, and where one photo has its lawn the other has its car park, each well observed by
photos of its own (missing correspondences: Zach et al. 2010; conflicting observations: Heinly et al. 2014). And photos
that do overlap, with many verified matches, are torn apart (inconsistent cycles: Zach et al. 2010).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array

from quoin.pipeline.core.events import Advance
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.mesh import connected_components
from quoin.stages.pose.checks.weak_links import leading_eigenvectors
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray


@dataclass(frozen=True)
class AmbiguityParams:
    """Which photos are compared, in which cells, and when two groups of them are in conflict."""

    min_strong_pair_inliers: int = 50  # verified matches from which on a pair is hardly one by chance
    min_reconstructed_inlier_share: float = 0.1  # of a pair's inliers, points of the model; fewer contradict the pair
    max_view_angle_deg: float = 25.0  # between two photos' rays to a point that both should see
    max_distance_ratio: float = 1.5  # of two photos' distances to a point that both should see
    min_common_points: int = 10  # points that two photos share, from which on they are compared
    grid_cells_per_side: int = 8  # cells along each side of a photo; two photos are compared cell by cell
    min_points_per_cell: int = 6  # points of each of the two photos, from which on a cell is compared
    min_agreeing_share: float = 0.2  # share of common points from which on a cell speaks for a pair
    max_conflicting_share: float = 0.05  # share of common points up to which a cell speaks against a pair
    min_compared_points: int = 40  # points in cells that speak for or against, from which on a pair is judged
    max_cached_photos: int = 4096  # photos whose points are held in memory
    min_side_photos: int = 3  # photos on the smaller side of two groups in conflict
    min_decisive_balance: float = 0.5  # absolute balance from which on a pair counts as clearly for or against
    min_conflicting_pairs: int = 3  # pairs clearly against, across two groups in conflict
    max_agreeing_pair_ratio: float = 0.25  # pairs across that are clearly for, per pair that is clearly against


AMBIGUITY = AmbiguityParams()


class PairComparison(NamedTuple):
    """Pairs of photos (rows of the model) that see one place, and the number of points that agree and that conflict."""

    photos: Int[Array, "m 2"]
    n_agreeing: Int[Array, "m"]
    n_conflicting: Int[Array, "m"]

    @property
    def balance(self) -> Float[Array, "m"]:
        """Balance of every pair: 1 where all compared points agree, -1 where all conflict."""
        return (self.n_agreeing - self.n_conflicting) / np.maximum(self.n_agreeing + self.n_conflicting, 1)


def find_contradicted_pairs(model: SparseModel, pairs: Int[Array, "m 4"]) -> tuple[Int[Array, "c 2"], int]:
    """Strong pairs (photo ids) whose matches are no points of the model, and the number of all strong pairs."""
    rows = model.rows_of(pairs[:, :2])
    chosen = (rows >= 0).all(axis=1) & (pairs[:, 3] >= AMBIGUITY.min_strong_pair_inliers)
    strong = pairs[chosen]
    if not len(strong):
        return strong[:, :2], 0
    n_shared = np.asarray(model.shared_points()[tuple(rows[chosen].T)]).ravel()
    return strong[n_shared < AMBIGUITY.min_reconstructed_inlier_share * strong[:, 3]][:, :2], len(strong)


def compare_photos(model: SparseModel, advance: Advance = lambda done: None) -> PairComparison:
    """Comparison of all pairs of photos that share points and see them from nearly the same place.

    ``advance`` is called with the number of photos that are compared with all after them.
    """
    comparer, shared = _PhotoComparer(model), model.shared_points()
    rows = []
    for a, (start, stop) in enumerate(pairwise(shared.indptr.tolist())):
        others = shared.indices[start:stop][shared.data[start:stop] >= AMBIGUITY.min_common_points]
        for b in sorted(others[others > a].tolist()):
            n_agreeing, n_conflicting = comparer.count_votes(a, b)
            if n_agreeing + n_conflicting >= AMBIGUITY.min_compared_points:
                rows.append((a, b, n_agreeing, n_conflicting))
        advance(a + 1)
    table = np.array(rows, np.int64).reshape(-1, 4)
    return PairComparison(table[:, :2], table[:, 2], table[:, 3])


class _PhotoPoints(NamedTuple):
    """A photo's points: index, position, ray from its camera center, its squared length, and the cell, -1 for none."""

    points: Int[Array, "n"]
    xyz: Float[Array, "n 3"]
    ray: Float[Array, "n 3"]
    distance2: Float[Array, "n"]
    cell: Int[Array, "n"]


class _PhotoComparer:
    """Counts the points that agree and conflict in the cells of two photos."""

    def __init__(self, model: SparseModel) -> None:
        self._model, self._centers = model, centers_world(model.cam_from_sfm)
        self._order = np.argsort(model.track_photo, kind="stable")
        self._ends = np.concatenate([[0], np.cumsum(model.n_observations)])
        self._point = model.track_point
        self._marked = np.zeros(len(model.points_sfm), bool)
        self._points_of = functools.lru_cache(AMBIGUITY.max_cached_photos)(self._load_points)

    def count_votes(self, a: int, b: int) -> tuple[int, int]:
        """Points for and against a pair, in cells with at least ``min_points_per_cell`` points of each photo."""
        points_a, points_b = self._points_of(a), self._points_of(b)
        in_b, in_a = self._cells(points_a, b), self._cells(points_b, a)
        votes_in_b = _count_votes(in_b, np.where(in_a >= 0, points_b.cell, -1), self._common(points_b, points_a))
        votes_in_a = _count_votes(in_a, np.where(in_b >= 0, points_a.cell, -1), self._common(points_a, points_b))
        return votes_in_b[0] + votes_in_a[0], votes_in_b[1] + votes_in_a[1]

    def _load_points(self, photo: int) -> _PhotoPoints:
        points = self._point[self._order[self._ends[photo] : self._ends[photo + 1]]]
        xyz = self._model.points_sfm[points]
        ray = xyz - self._centers[photo]
        rows = np.arange(len(points))
        return _PhotoPoints(points, xyz, ray, np.einsum("ij,ij->i", ray, ray), self._projected(xyz, rows, photo))

    def _common(self, own_points: _PhotoPoints, others: _PhotoPoints) -> Bool[Array, "n"]:
        """Mask of the points of one photo that the other observes too."""
        self._marked[others.points] = True
        common = self._marked[own_points.points]
        self._marked[others.points] = False
        return common

    def _cells(self, points_seen: _PhotoPoints, photo: int) -> Int[Array, "n"]:
        """Cell of another photo in which each point lies; -1 outside, or where the two views of it differ too much."""
        ray = points_seen.xyz - self._centers[photo]
        distance2 = np.einsum("ij,ij->i", ray, ray)
        is_similar_view = np.einsum("ij,ij->i", ray, points_seen.ray) > np.cos(
            np.radians(AMBIGUITY.max_view_angle_deg)
        ) * np.sqrt(distance2 * points_seen.distance2)
        is_similar_view &= (distance2 < AMBIGUITY.max_distance_ratio**2 * points_seen.distance2) & (
            points_seen.distance2 < AMBIGUITY.max_distance_ratio**2 * distance2
        )
        return self._projected(points_seen.xyz, np.flatnonzero(is_similar_view), photo)

    def _projected(self, xyz: Float[Array, "n 3"], rows: Int[Array, "m"], photo: int) -> Int[Array, "n"]:
        """Cell of a photo in which the points of these ``rows`` lie; -1 for all others."""
        pose, camera = self._model.cam_from_sfm[photo], self._model.cameras[self._model.camera_index[photo]]
        cam = xyz[rows] @ pose[:, :3].T + pose[:, 3]
        is_in_front = cam[:, 2] > 1e-9
        rows, cam = rows[is_in_front], cam[is_in_front]
        share = camera.img_from_cam(cam[:, :2] / cam[:, 2:]) / [camera.width, camera.height]
        inside = ((share >= 0) & (share < 1)).all(axis=1)
        cells = np.full(len(xyz), -1)
        column, line = (share[inside] * AMBIGUITY.grid_cells_per_side).astype(int).T
        cells[rows[inside]] = line * AMBIGUITY.grid_cells_per_side + column
        return cells


def _count_votes(cell_of_a: Int[Array, "n"], cell_of_b: Int[Array, "m"], common: Bool[Array, "m"]) -> tuple[int, int]:
    """Points for and against, in the cells of photo b; ``common`` are the points of b that a observes too."""
    n_a, n_b, n_common = (
        np.bincount(cells[cells >= 0], minlength=AMBIGUITY.grid_cells_per_side * AMBIGUITY.grid_cells_per_side)
        for cells in (cell_of_a, cell_of_b, cell_of_b[common])
    )
    fewer = np.minimum(n_a, n_b)
    counts = fewer >= AMBIGUITY.min_points_per_cell
    return (
        int(fewer[counts & (n_common >= AMBIGUITY.min_agreeing_share * fewer)].sum()),
        int(fewer[counts & (n_common <= AMBIGUITY.max_conflicting_share * fewer)].sum()),
    )


def find_conflicting_side(comparison: PairComparison, n_photos: int) -> Bool[Array, "k"] | None:
    """Mask of one of two groups of photos that are laid over one another wrongly; None where no two groups stand out.

    The cut with the least balance across it: by the sign of the first eigenvector of the balances (of each connected
    part of them), then refined by moving single photos. Several pairs across it must be clearly against, and hardly
    any for it.
    """
    against = comparison.balance < 0
    if against.sum() < AMBIGUITY.min_side_photos:
        return None
    a, b = comparison.photos.T
    coo_entries = comparison.balance, (a, b)
    balance = csr_array(coo_array(coo_entries, shape=(n_photos, n_photos)))
    balance = csr_array(balance + balance.T)
    balance.eliminate_zeros()
    first, second = balance.nonzero()
    part_of = connected_components(first, second, n_photos)[1]
    best, lowest_balance = None, 0.0
    for part in np.unique(part_of[a[against]]):
        members = np.flatnonzero(part_of == part)
        part_balance = csr_array(balance[members][:, members])
        side = _refine_side(part_balance, np.where(leading_eigenvectors(part_balance, 1)[:, 0] >= 0, 1.0, -1.0))
        across = part_balance[side > 0][:, side < 0].data
        n_conflicting, n_agreeing = (
            int((across < -AMBIGUITY.min_decisive_balance).sum()),
            int((across > AMBIGUITY.min_decisive_balance).sum()),
        )
        is_decisive = (
            n_conflicting >= AMBIGUITY.min_conflicting_pairs
            and n_agreeing <= AMBIGUITY.max_agreeing_pair_ratio * n_conflicting
        )
        if (
            is_decisive
            and min((side > 0).sum(), (side < 0).sum()) >= AMBIGUITY.min_side_photos
            and across.sum() < lowest_balance
        ):
            lowest_balance = float(across.sum())
            best = np.zeros(n_photos, bool)
            best[members[side < 0] if (side < 0).sum() <= (side > 0).sum() else members[side > 0]] = True
    return best


def _refine_side(balance: csr_array, side: Float[Array, "n"]) -> Float[Array, "n"]:
    """Sides (1 and -1) after moving single photos while that lowers the balance across the cut; one move per photo."""
    side = side.copy()
    for _ in range(len(side)):
        pull = side * (balance @ side)  # what a photo has in common with its own side, less that with the other
        worst = int(pull.argmin())
        if pull[worst] >= 0:
            break
        side[worst] = -side[worst]
    return side
