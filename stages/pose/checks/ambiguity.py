"""Photos that stand beside each other in a model but show different things, as symmetric and repeated structures do.

Two facades that look the same match, and photos of one are laid over those of the other. Each residual is small. What
gives the fold away is what does *not* match. Seen from nearly the same place, two photos should show the same points
everywhere; here the facade agrees, and where one photo has its lawn the other has its car park, each well observed by
photos of its own (missing correspondences: Zach et al. 2010; conflicting observations: Heinly et al. 2014). And photos
that do overlap, with many verified matches, are torn apart (inconsistent cycles: Zach et al. 2010).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array

from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.mesh import connected_components
from quoin.stages.pose.checks.weak_links import leading_eigenvectors
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray

MIN_STRONG_PAIR_INLIERS = 50  # verified matches of a pair that hardly come about by chance
MIN_RECONSTRUCTED_INLIER_SHARE = (
    0.1  # of a pair's inliers that are points of the model; with fewer the poses contradict the pair
)
MAX_VIEW_ANGLE_DEG = 25.0  # between the rays to a point, and
MAX_DISTANCE_RATIO = 1.5  # ratio of distances to it, up to which a photo should see what another sees
MIN_COMMON_POINTS = 10  # points that two photos share, to be compared
GRID_CELLS_PER_SIDE = 8  # per side of a photo, which is judged cell by cell
MIN_POINTS_PER_CELL = 6  # points that each of the two photos has in a cell
MIN_AGREEING_SHARE, MAX_CONFLICTING_SHARE = (
    0.2,
    0.05,
)  # of those points that are common, from which on and up to which a cell counts
MIN_COMPARED_POINTS = 40  # points in cells that count, of a pair
MAX_CACHED_PHOTOS = 4096  # whose points are at hand
MIN_SIDE_PHOTOS = 3  # photos
MIN_DECISIVE_BALANCE = 0.5  # balance of a pair from which on it says something by itself
MIN_CONFLICTING_PAIRS, MAX_AGREEING_PAIR_RATIO = (
    3,
    0.25,
)  # clear pairs against, across two sides; clear ones for, as a share of them


class PairComparison(NamedTuple):
    """Pairs of photos (rows of the model) that look at one place, and how many points speak for that and against."""

    photos: Int[Array, "m 2"]
    n_agreeing: Int[Array, "m"]
    n_conflicting: Int[Array, "m"]

    @property
    def balance(self) -> Float[Array, "m"]:
        """1 where all points that count speak for a pair, -1 where all speak against it."""
        return (self.n_agreeing - self.n_conflicting) / np.maximum(self.n_agreeing + self.n_conflicting, 1)


def find_contradicted_pairs(model: SparseModel, pairs: Int[Array, "m 4"]) -> tuple[Int[Array, "c 2"], int]:
    """Strong pairs of registered photos (photo ids) whose matches are no points of the model; and of how many."""
    rows = model.rows_of(pairs[:, :2])
    chosen = (rows >= 0).all(axis=1) & (pairs[:, 3] >= MIN_STRONG_PAIR_INLIERS)
    strong = pairs[chosen]
    if not len(strong):
        return strong[:, :2], 0
    n_shared = np.asarray(model.shared_points()[tuple(rows[chosen].T)]).ravel()
    return strong[n_shared < MIN_RECONSTRUCTED_INLIER_SHARE * strong[:, 3]][:, :2], len(strong)


def compare_photos(model: SparseModel, advance: Callable[[float], None] = lambda done: None) -> PairComparison:
    """All pairs of photos that share points and see them from nearly the same place, cell by cell.

    ``advance`` is told how many photos have been compared with those after them.
    """
    comparer, shared = _PhotoComparer(model), model.shared_points()
    rows = []
    for a, (start, stop) in enumerate(pairwise(shared.indptr.tolist())):
        others = shared.indices[start:stop][shared.data[start:stop] >= MIN_COMMON_POINTS]
        for b in sorted(others[others > a].tolist()):
            n_agreeing, n_conflicting = comparer.count_votes(a, b)
            if n_agreeing + n_conflicting >= MIN_COMPARED_POINTS:
                rows.append((a, b, n_agreeing, n_conflicting))
        advance(a + 1)
    table = np.array(rows, np.int64).reshape(-1, 4)
    return PairComparison(table[:, :2], table[:, 2], table[:, 3])


class _PhotoPoints(NamedTuple):
    """A photo's points: which, where, from its camera to them, how far that is (squared), and its cell, -1 for none."""

    points: Int[Array, "n"]
    xyz: Float[Array, "n 3"]
    ray: Float[Array, "n 3"]
    distance2: Float[Array, "n"]
    cell: Int[Array, "n"]


class _PhotoComparer:
    """Two photos at a time, in the cells of both."""

    def __init__(self, model: SparseModel) -> None:
        self._model, self._centers = model, centers_world(model.cam_from_sfm)
        self._order = np.argsort(model.track_photo, kind="stable")
        self._ends = np.concatenate([[0], np.cumsum(model.n_observations)])
        self._point = model.track_point
        self._marked = np.zeros(len(model.points_sfm), bool)
        self._points_of = functools.lru_cache(MAX_CACHED_PHOTOS)(self._load_points)

    def count_votes(self, a: int, b: int) -> tuple[int, int]:
        """For and against: of the points that both photos should see, at least MIN_POINTS_PER_CELL by each, cell by
        cell."""
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
        """Which points of one photo the other has too."""
        self._marked[others.points] = True
        common = self._marked[own_points.points]
        self._marked[others.points] = False
        return common

    def _cells(self, points_seen: _PhotoPoints, photo: int) -> Int[Array, "n"]:
        """Cell of another photo in which each point lies; -1 outside, or where the two look at it too differently."""
        ray = points_seen.xyz - self._centers[photo]
        distance2 = np.einsum("ij,ij->i", ray, ray)
        is_similar_view = np.einsum("ij,ij->i", ray, points_seen.ray) > np.cos(
            np.radians(MAX_VIEW_ANGLE_DEG)
        ) * np.sqrt(distance2 * points_seen.distance2)
        is_similar_view &= (distance2 < MAX_DISTANCE_RATIO**2 * points_seen.distance2) & (
            points_seen.distance2 < MAX_DISTANCE_RATIO**2 * distance2
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
        column, line = (share[inside] * GRID_CELLS_PER_SIDE).astype(int).T
        cells[rows[inside]] = line * GRID_CELLS_PER_SIDE + column
        return cells


def _count_votes(cell_of_a: Int[Array, "n"], cell_of_b: Int[Array, "m"], common: Bool[Array, "m"]) -> tuple[int, int]:
    """For and against, in the cells of photo b, where points of both lie; ``common``: points of b that a has too."""
    n_a, n_b, n_common = (
        np.bincount(cells[cells >= 0], minlength=GRID_CELLS_PER_SIDE * GRID_CELLS_PER_SIDE)
        for cells in (cell_of_a, cell_of_b, cell_of_b[common])
    )
    fewer = np.minimum(n_a, n_b)
    counts = fewer >= MIN_POINTS_PER_CELL
    return (
        int(fewer[counts & (n_common >= MIN_AGREEING_SHARE * fewer)].sum()),
        int(fewer[counts & (n_common <= MAX_CONFLICTING_SHARE * fewer)].sum()),
    )


def find_conflicting_side(comparison: PairComparison, n_photos: int) -> Bool[Array, "k"] | None:
    """One of two groups of photos that are laid over one another wrongly; None where no such groups stand out.

    The parting with the least balance across it, from the sign of the first eigenvector of the balances (of each part
    that they connect), bettered by moving single photos. It counts where several pairs across speak
    clearly against, and hardly any for it.
    """
    against = comparison.balance < 0
    if against.sum() < MIN_SIDE_PHOTOS:
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
            int((across < -MIN_DECISIVE_BALANCE).sum()),
            int((across > MIN_DECISIVE_BALANCE).sum()),
        )
        is_decisive = n_conflicting >= MIN_CONFLICTING_PAIRS and n_agreeing <= MAX_AGREEING_PAIR_RATIO * n_conflicting
        if is_decisive and min((side > 0).sum(), (side < 0).sum()) >= MIN_SIDE_PHOTOS and across.sum() < lowest_balance:
            lowest_balance = float(across.sum())
            best = np.zeros(n_photos, bool)
            best[members[side < 0] if (side < 0).sum() <= (side > 0).sum() else members[side > 0]] = True
    return best


def _refine_side(balance: csr_array, side: Float[Array, "n"]) -> Float[Array, "n"]:
    """Sides (1 and -1) after moving single photos as long as that lowers the balance across; at most once each."""
    side = side.copy()
    for _ in range(len(side)):
        pull = side * (balance @ side)  # what a photo has in common with its own side, less that with the other
        worst = int(pull.argmin())
        if pull[worst] >= 0:
            break
        side[worst] = -side[worst]
    return side
