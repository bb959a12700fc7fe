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
from scipy.sparse.csgraph import connected_components

from quoin.pipeline.geometry.cameras import centers_world
from quoin.stages.pose.checks.weak_links import leading_vectors
from quoin.stages.pose.colmap.camera_models import distort
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray

STRONG_INLIERS = 50  # verified matches of a pair that hardly come about by chance
BORNE_OUT = 0.1  # of a pair's inliers that are points of the model; with fewer the poses contradict the pair
MAX_TURN_DEG = 25.0  # between the rays to a point, and
MAX_NEARER = 1.5  # ratio of distances to it, up to which a photo should see what another sees
MIN_COMMON = 10  # points that two photos share, to be compared
CELLS = 8  # per side of a photo, which is judged cell by cell
MIN_IN_CELL = 6  # points that each of the two photos has in a cell
AGREE, DISAGREE = 0.2, 0.05  # of those points that are common, from which on and up to which a cell counts
MIN_JUDGED = 40  # points in cells that count, of a pair
PHOTOS_KEPT = 4096  # whose points are at hand
MIN_SIDE = 3  # photos
CLEAR = 0.5  # balance of a pair from which on it says something by itself
MIN_AGAINST, MAX_FOR = 3, 0.25  # clear pairs against, across two sides; clear ones for, as a share of them


class Compared(NamedTuple):
    """Pairs of photos (rows of the model) that look at one place, and how many points speak for that and against."""

    photos: Int[Array, "m 2"]
    n_for: Int[Array, "m"]
    n_against: Int[Array, "m"]

    @property
    def balance(self) -> Float[Array, "m"]:
        """1 where all points that count speak for a pair, -1 where all speak against it."""
        return (self.n_for - self.n_against) / np.maximum(self.n_for + self.n_against, 1)


def contradicted(model: SparseModel, pairs: Int[Array, "m 4"]) -> tuple[Int[Array, "c 2"], int]:
    """Strong pairs of registered photos (photo ids) whose matches are no points of the model; and of how many."""
    rows = model.rows_of(pairs[:, :2])
    chosen = (rows >= 0).all(axis=1) & (pairs[:, 3] >= STRONG_INLIERS)
    strong = pairs[chosen]
    if not len(strong):
        return strong[:, :2], 0
    n_shared = np.asarray(model.shared_points()[tuple(rows[chosen].T)]).ravel()
    return strong[n_shared < BORNE_OUT * strong[:, 3]][:, :2], len(strong)


def compare(model: SparseModel, advance: Callable[[float], None] = lambda done: None) -> Compared:
    """All pairs of photos that share points and see them from nearly the same place, cell by cell.

    ``advance`` is told how many photos have been compared with those after them.
    """
    looks, shared = _Looks(model), model.shared_points()
    rows = []
    for a, (start, stop) in enumerate(pairwise(shared.indptr.tolist())):
        others = shared.indices[start:stop][shared.data[start:stop] >= MIN_COMMON]
        for b in sorted(others[others > a].tolist()):
            n_for, n_against = looks.votes(a, b)
            if n_for + n_against >= MIN_JUDGED:
                rows.append((a, b, n_for, n_against))
        advance(a + 1)
    table = np.array(rows, np.int64).reshape(-1, 4)
    return Compared(table[:, :2], table[:, 2], table[:, 3])


class _Seen(NamedTuple):
    """A photo's points: which, where, from its camera to them, how far that is (squared), and its cell, -1 for none."""

    points: Int[Array, "n"]
    at: Float[Array, "n 3"]
    ray: Float[Array, "n 3"]
    away2: Float[Array, "n"]
    cell: Int[Array, "n"]


class _Looks:
    """Two photos at a time, in the cells of both."""

    def __init__(self, model: SparseModel) -> None:
        self._model, self._centers = model, centers_world(model.cam_from_sfm)
        self._order = np.argsort(model.track_photo, kind="stable")
        self._ends = np.concatenate([[0], np.cumsum(model.n_observations)])
        self._point = model.track_point
        self._marked = np.zeros(len(model.points_sfm), bool)
        self._seen = functools.lru_cache(PHOTOS_KEPT)(self._look)

    def votes(self, a: int, b: int) -> tuple[int, int]:
        """For and against: of the points that both photos should see, at least MIN_IN_CELL by each, cell by cell."""
        one, other = self._seen(a), self._seen(b)
        in_b, in_a = self._cells(one, b), self._cells(other, a)
        here = _counted(in_b, np.where(in_a >= 0, other.cell, -1), self._common(other, one))
        there = _counted(in_a, np.where(in_b >= 0, one.cell, -1), self._common(one, other))
        return here[0] + there[0], here[1] + there[1]

    def _look(self, photo: int) -> _Seen:
        points = self._point[self._order[self._ends[photo] : self._ends[photo + 1]]]
        at = self._model.points_sfm[points]
        ray = at - self._centers[photo]
        rows = np.arange(len(points))
        return _Seen(points, at, ray, np.einsum("ij,ij->i", ray, ray), self._projected(at, rows, photo))

    def _common(self, of: _Seen, others: _Seen) -> Bool[Array, "n"]:
        """Which points of one photo the other has too."""
        self._marked[others.points] = True
        common = self._marked[of.points]
        self._marked[others.points] = False
        return common

    def _cells(self, seen: _Seen, photo: int) -> Int[Array, "n"]:
        """Cell of another photo in which each point lies; -1 outside, or where the two look at it too differently."""
        ray = seen.at - self._centers[photo]
        away2 = np.einsum("ij,ij->i", ray, ray)
        alike = np.einsum("ij,ij->i", ray, seen.ray) > np.cos(np.radians(MAX_TURN_DEG)) * np.sqrt(away2 * seen.away2)
        alike &= (away2 < MAX_NEARER**2 * seen.away2) & (seen.away2 < MAX_NEARER**2 * away2)
        return self._projected(seen.at, np.flatnonzero(alike), photo)

    def _projected(self, at: Float[Array, "n 3"], rows: Int[Array, "m"], photo: int) -> Int[Array, "n"]:
        """Cell of a photo in which the points of these ``rows`` lie; -1 for all others."""
        pose, camera = self._model.cam_from_sfm[photo], self._model.cameras[self._model.camera_index[photo]]
        cam = at[rows] @ pose[:, :3].T + pose[:, 3]
        ahead = cam[:, 2] > 1e-9
        rows, cam = rows[ahead], cam[ahead]
        share = distort(camera, cam[:, :2] / cam[:, 2:]) / [camera.width, camera.height]
        inside = ((share >= 0) & (share < 1)).all(axis=1)
        cells = np.full(len(at), -1)
        column, line = (share[inside] * CELLS).astype(int).T
        cells[rows[inside]] = line * CELLS + column
        return cells


def _counted(cell_of_a: Int[Array, "n"], cell_of_b: Int[Array, "m"], common: Bool[Array, "m"]) -> tuple[int, int]:
    """For and against, in the cells of photo b, where points of both lie; ``common``: points of b that a has too."""
    n_a, n_b, n_common = (
        np.bincount(cells[cells >= 0], minlength=CELLS * CELLS) for cells in (cell_of_a, cell_of_b, cell_of_b[common])
    )
    fewer = np.minimum(n_a, n_b)
    counts = fewer >= MIN_IN_CELL
    return (
        int(fewer[counts & (n_common >= AGREE * fewer)].sum()),
        int(fewer[counts & (n_common <= DISAGREE * fewer)].sum()),
    )


def sides(compared: Compared, n_photos: int) -> Bool[Array, "k"] | None:
    """One of two groups of photos that are laid over one another wrongly; None where no such groups stand out.

    The parting with the least balance across it, from the sign of the first eigenvector of the balances (of each part
    that they connect), bettered by moving single photos. It counts where several pairs across speak
    clearly against, and hardly any for it.
    """
    against = compared.balance < 0
    if against.sum() < MIN_SIDE:
        return None
    a, b = compared.photos.T
    known = compared.balance, (a, b)
    balance = csr_array(coo_array(known, shape=(n_photos, n_photos)))
    balance = csr_array(balance + balance.T)
    balance.eliminate_zeros()
    part_of = connected_components(balance, directed=False)[1]
    best, least = None, 0.0
    for part in np.unique(part_of[a[against]]):
        members = np.flatnonzero(part_of == part)
        own = csr_array(balance[members][:, members])
        side = _settle(own, np.where(leading_vectors(own, 1)[:, 0] >= 0, 1.0, -1.0))
        across = own[side > 0][:, side < 0].data
        n_against, n_for = int((across < -CLEAR).sum()), int((across > CLEAR).sum())
        clear = n_against >= MIN_AGAINST and n_for <= MAX_FOR * n_against
        if clear and min((side > 0).sum(), (side < 0).sum()) >= MIN_SIDE and across.sum() < least:
            least = float(across.sum())
            best = np.zeros(n_photos, bool)
            best[members[side < 0] if (side < 0).sum() <= (side > 0).sum() else members[side > 0]] = True
    return best


def _settle(balance: csr_array, side: Float[Array, "n"]) -> Float[Array, "n"]:
    """Sides (1 and -1) after moving single photos as long as that lowers the balance across; at most once each."""
    side = side.copy()
    for _ in range(len(side)):
        pull = side * (balance @ side)  # what a photo has in common with its own side, less that with the other
        worst = int(pull.argmin())
        if pull[worst] >= 0:
            break
        side[worst] = -side[worst]
    return side
