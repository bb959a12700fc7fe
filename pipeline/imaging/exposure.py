"""Exposure and tint of every photo, from the same places seen in several of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Array = np.ndarray

GAIN_LIMITS = (0.3, 3.3)
GAIN_PRIOR = 0.02  # how strongly a gain is drawn to 1, as a share of the photo's mean number of shared places
MIN_UNCLIPPED, MAX_UNCLIPPED = 12, 245  # of 255; beyond, a photo may be clipped
MAX_SHARED_POINTS = 40_000


def photo_gains(
    rgb: UInt8[Array, "v k 3"], photo: Int[Array, "v k"], visible: Bool[Array, "v k"], n_photos: int, *, seed: int
) -> Float[Array, "p 3"]:
    """Exposure factor of every photo and channel, about 1: divided by it, the colours of all photos agree.

    ``rgb`` are the colours of places as up to k photos show them, where ``visible``. For each pair of photos the median
    log ratio r_pq over places that both see; then least squares Σ n_pq (g_p - g_q - r_pq)² + λ Σ g_p² (gain
    compensation of Brown & Lowe 2007, in the logarithm).
    """
    rng = np.random.default_rng(seed)
    shared = np.flatnonzero(visible.sum(axis=1) >= 2)
    sample = rng.choice(shared, min(MAX_SHARED_POINTS, len(shared)), replace=False)
    rgb, photo = rgb[sample], photo[sample]
    valid = visible[sample] & np.all((rgb > MIN_UNCLIPPED) & (rgb < MAX_UNCLIPPED), axis=2)
    log_rgb = np.log(np.maximum(rgb, 1).astype(np.float32))
    first, second, ratio = [], [], []
    for a, b in combinations(range(photo.shape[1]), 2):
        both = valid[:, a] & valid[:, b]
        p, q, r = photo[both, a], photo[both, b], log_rgb[both, a] - log_rgb[both, b]
        swap = p > q
        first.append(np.where(swap, q, p))
        second.append(np.where(swap, p, q))
        ratio.append(np.where(swap[:, None], -r, r))
    out = np.ones((n_photos, 3))
    if not first or sum(map(len, first)) == 0:
        return out
    pair = np.concatenate(first).astype(np.int64) * n_photos + np.concatenate(second)
    ratios = np.concatenate(ratio)
    pairs, count = np.unique(pair, return_counts=True)
    p, q = np.divmod(pairs, n_photos)
    for channel in range(3):
        order = np.lexsort((ratios[:, channel], pair))  # within each pair by ratio: the median is in the middle
        start = np.cumsum(count) - count
        median = ratios[order[start + count // 2], channel]
        out[:, channel] = np.exp(_solve_gains(p, q, median, count, n_photos))
    return np.clip(out, *GAIN_LIMITS)


def _solve_gains(
    p: Int[Array, "m"], q: Int[Array, "m"], ratio: Float[Array, "m"], count: Int[Array, "m"], n_photos: int
) -> Float[Array, "n"]:
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve

    weight = count.astype(np.float64)
    rows, cols = np.concatenate([p, q, p, q]), np.concatenate([p, q, q, p])
    laplacian = coo_array((np.concatenate([weight, weight, -weight, -weight]), (rows, cols)), shape=(n_photos,) * 2)
    right = np.bincount(p, weight * ratio, n_photos) - np.bincount(q, weight * ratio, n_photos)
    prior = max(GAIN_PRIOR * 2 * weight.sum() / n_photos, 1e-6)
    return spsolve((laplacian + diags_array(np.full(n_photos, prior))).tocsc(), right)
