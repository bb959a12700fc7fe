"""Where a model hangs together by a thread: two groups of photos that see hardly anything in common.

Repeated or symmetric things match though they are not the same. Where such matches alone join two groups of photos,
each group is fine in itself and stands in the wrong place beside the other: the mesh shows the object twice. The error
is in no residual, only in how little the groups share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh

from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray

MIN_CUT_SIDE_PHOTOS = 3  # photos
MIN_SHARED_POINTS = 150  # points that photos of both groups see; with fewer,
MIN_SHARED_POINTS_SHARE = 0.06  # and less than this share of what the smaller group sees itself, a bridge is weak
N_EIGENVECTORS = 3
MAX_DENSE_PHOTOS = 1000  # photos up to which eigenvectors are found of the whole matrix


class ViewGraphCut(NamedTuple):
    """A way to part the photos in two, and what joins them."""

    side: Bool[Array, "k"]
    n_shared: int  # points seen from both sides
    share: float  # of the points that two or more photos of the smaller side see

    @property
    def is_weak(self) -> bool:
        """Whether so little joins the sides that chance matches could."""
        return self.n_shared < MIN_SHARED_POINTS and self.share < MIN_SHARED_POINTS_SHARE


def weakest_cut(model: SparseModel) -> ViewGraphCut | None:
    """The parting with the least share of shared points; None for fewer than six photos.

    Candidates are the prefixes of the photos in the order of each of the first eigenvectors of the normalised Laplacian
    of how many points two photos share (spectral bisection: Shi and Malik 2000).
    """
    n = len(model.photo_ids)
    if n < 2 * MIN_CUT_SIDE_PHOTOS or len(model.points_sfm) == 0:
        return None
    shared = csr_array(model.shared_points(), dtype=float)
    shared = shared - diags_array(shared.diagonal())
    scale = 1.0 / np.sqrt(np.maximum(shared.sum(axis=1), 1.0))
    affinity = diags_array(scale) @ shared @ diags_array(scale)  # the Laplacian is the identity less this
    eigenvectors = leading_eigenvectors(csr_array(affinity), min(N_EIGENVECTORS, n - 1) + 1)[:, 1:]
    return min((_best_prefix(model, np.argsort(v * scale)) for v in eigenvectors.T), key=lambda cut: cut.share)


def leading_eigenvectors(matrix: csr_array, count: int) -> Float[Array, "n k"]:
    """Eigenvectors of a symmetric matrix to its ``count`` largest eigenvalues, those of the largest first.

    All at once where the matrix is small, by Lanczos iterations (which cost what its entries do) where it is not.
    """
    n = matrix.shape[0]
    if n <= MAX_DENSE_PHOTOS:
        return eigh(matrix.toarray(), subset_by_index=[n - count, n - 1])[1][:, ::-1]
    start = np.random.default_rng(0).normal(size=n)
    values, eigenvectors = eigsh(matrix, count, which="LA", v0=start, tol=1e-6)
    return eigenvectors[:, np.argsort(-values, kind="stable")]


def _best_prefix(model: SparseModel, order: Int[Array, "k"]) -> ViewGraphCut:
    """The prefix of ``order`` that shares least with the rest.

    A point joins a prefix and the rest where its first observer lies within and its last beyond; it is the prefix's own
    where its second observer lies within, and the rest's where its last but one lies beyond.
    """
    n = len(order)
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    rank, point = position[model.track_photo], model.track_point
    rows = np.lexsort((rank, point))
    rank, start = rank[rows], model.track_offsets[:-1]
    end = model.track_offsets[1:] - 1
    first, second, second_last, last = (rank[at] for at in (start, start + 1, end - 1, end))

    def within(position: Int[Array, "p"]) -> Int[Array, "k"]:
        """Of how many points this position lies within the prefix of every length 0 to k - 1."""
        return np.concatenate([[0], np.cumsum(np.bincount(position, minlength=n))[:-1]])

    n_shared = within(first) - within(last)
    n_own = np.minimum(within(second), len(first) - within(second_last))
    share = n_shared / np.maximum(n_own, 1)
    lengths = np.arange(MIN_CUT_SIDE_PHOTOS, n - MIN_CUT_SIDE_PHOTOS + 1)
    best = lengths[np.argmin(share[lengths])]
    return ViewGraphCut(position < best, int(n_shared[best]), float(share[best]))


def split_at_weak_cuts(model: SparseModel) -> tuple[list[SparseModel], list[ViewGraphCut]]:
    """The model parted at its weak bridges, largest part first, and those bridges; itself alone where it has none."""
    cut = weakest_cut(model)
    if cut is None or not cut.is_weak:
        return [model], []
    parts, cuts = [], [cut]
    for side in (cut.side, ~cut.side):
        pieces, further_cuts = split_at_weak_cuts(model.keep_photos(side))
        parts += pieces
        cuts += further_cuts
    return sorted(parts, key=lambda part: -len(part.photo_ids)), cuts
