"""Finds weak cuts of the view graph, two groups of photos that share hardly any points, and splits components there.

Repeated or symmetric things match though they are not the same. Where such matches alone join two groups of photos,
each group is right in itself and stands in the wrong place beside the other: the mesh shows the object twice. No
residual shows that error, only how few points the groups share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh

from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray


@dataclass(frozen=True)
class WeakLinkParams:
    """Limits below which the points that two groups share may be chance matches."""

    min_cut_side_photos: int = 3  # photos on the smaller side of a cut
    min_shared_points: int = 150  # points seen from both sides, from which on a link is not weak
    min_shared_points_share: float = 0.06  # of the points that the smaller side sees itself, likewise
    n_eigenvectors: int = 3  # eigenvectors of the Laplacian along which cuts are looked for
    max_dense_photos: int = 1000  # photos; of more, eigenvectors are found by Lanczos iterations


WEAK_LINKS = WeakLinkParams()


class ViewGraphCut(NamedTuple):
    """Cut of the photos into two sides, and the points that both see."""

    side: Bool[Array, "k"]
    n_shared: int  # points seen from both sides
    share: float  # of the points that two or more photos of the smaller side see

    @property
    def is_weak(self) -> bool:
        """Whether the sides share so few points that chance matches could join them."""
        return self.n_shared < WEAK_LINKS.min_shared_points and self.share < WEAK_LINKS.min_shared_points_share


def weakest_cut(model: SparseModel) -> ViewGraphCut | None:
    """The cut with the least share of shared points; None for fewer than six photos.

    Candidates are the prefixes of the photos in the order of each of the first eigenvectors of the normalised Laplacian
    of how many points two photos share (spectral bisection: Shi and Malik 2000).
    """
    n = len(model.photo_ids)
    if n < 2 * WEAK_LINKS.min_cut_side_photos or len(model.points_sfm) == 0:
        return None
    shared = csr_array(model.shared_points(), dtype=float)
    shared = shared - diags_array(shared.diagonal())
    scale = 1.0 / np.sqrt(np.maximum(shared.sum(axis=1), 1.0))
    affinity = diags_array(scale) @ shared @ diags_array(scale)  # the Laplacian is the identity less this
    eigenvectors = leading_eigenvectors(csr_array(affinity), min(WEAK_LINKS.n_eigenvectors, n - 1) + 1)[:, 1:]
    return min((_best_prefix(model, np.argsort(v * scale)) for v in eigenvectors.T), key=lambda cut: cut.share)


def leading_eigenvectors(matrix: csr_array, count: int) -> Float[Array, "n k"]:
    """Eigenvectors of a symmetric matrix to its ``count`` largest eigenvalues, those of the largest first.

    All at once where the matrix is small, by Lanczos iterations (which cost what its entries do) where it is not.
    """
    n = matrix.shape[0]
    if n <= WEAK_LINKS.max_dense_photos:
        return eigh(matrix.toarray(), subset_by_index=[n - count, n - 1])[1][:, ::-1]
    start = np.random.default_rng(0).normal(size=n)
    values, eigenvectors = eigsh(matrix, count, which="LA", v0=start, tol=1e-6)
    return eigenvectors[:, np.argsort(-values, kind="stable")]


def _best_prefix(model: SparseModel, order: Int[Array, "k"]) -> ViewGraphCut:
    """Cut between the prefix of ``order`` that shares the least and the rest.

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
        """Number of points whose position lies within the prefix, for every length 0 to k - 1."""
        return np.concatenate([[0], np.cumsum(np.bincount(position, minlength=n))[:-1]])

    n_shared = within(first) - within(last)
    n_own = np.minimum(within(second), len(first) - within(second_last))
    share = n_shared / np.maximum(n_own, 1)
    lengths = np.arange(WEAK_LINKS.min_cut_side_photos, n - WEAK_LINKS.min_cut_side_photos + 1)
    best = lengths[np.argmin(share[lengths])]
    return ViewGraphCut(position < best, int(n_shared[best]), float(share[best]))


def split_at_weak_cuts(model: SparseModel) -> tuple[list[SparseModel], list[ViewGraphCut]]:
    """The model split at its weak cuts, largest part first, and those cuts; the whole model where it has none."""
    cut = weakest_cut(model)
    if cut is None or not cut.is_weak:
        return [model], []
    parts, cuts = [], [cut]
    for side in (cut.side, ~cut.side):
        pieces, further_cuts = split_at_weak_cuts(model.keep_photos(side))
        parts += pieces
        cuts += further_cuts
    return sorted(parts, key=lambda part: -len(part.photo_ids)), cuts
