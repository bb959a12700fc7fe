"""Vertex colours from the photos: best samples kept per vertex, exposures evened out, outliers rejected."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Array = np.ndarray

OUTLIER = 28.0  # a sample further from the median than this (of 255, any channel) does not count
GAIN_LIMITS = (0.3, 3.3)
GAIN_PRIOR = 0.02  # how strongly a gain is drawn to 1, as a share of the photo's mean number of shared vertices


@dataclass
class Samples:
    """The best ``k`` colour samples of every vertex: colour, photo, weight (0: an empty place)."""

    rgb: UInt8[Array, "v k 3"]
    photo: Int[Array, "v k"]
    weight: Float[Array, "v k"]

    @classmethod
    def empty(cls, n_vertices: int, k: int) -> Samples:
        shape = (n_vertices, k)
        return cls(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.int32), np.zeros(shape, np.float32))

    def add(self, photo: int, vertex: Int[Array, "n"], rgb: UInt8[Array, "n 3"], weight: Float[Array, "n"]) -> None:
        """Offer one photo's samples; each takes the place of its vertex's weakest where it is stronger."""
        weakest = self.weight[vertex].argmin(axis=1)
        better = weight > self.weight[vertex, weakest]
        v, slot = vertex[better], weakest[better]
        self.rgb[v, slot], self.photo[v, slot], self.weight[v, slot] = rgb[better], photo, weight[better]


def bilinear(image: UInt8[Array, "h w 3"], place: Float[Array, "n 2"]) -> UInt8[Array, "n 3"]:
    """Colours at places given as shares of width and height, pixel centres at half-integers."""
    height, width = image.shape[:2]
    x = np.clip(place[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(place[:, 1] * height - 0.5, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int32), max(width - 2, 0)), np.minimum(y.astype(np.int32), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    u, v = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    top = image[y0, x0] * (1 - u) + image[y0, x1] * u
    bottom = image[y1, x0] * (1 - u) + image[y1, x1] * u
    return np.rint(top * (1 - v) + bottom * v).astype(np.uint8)


def photo_gains(samples: Samples, n_photos: int, *, seed: int, max_vertices: int = 40_000) -> Float[Array, "p 3"]:
    """Exposure factor of every photo and channel, about 1: divided by it, the colours of all photos agree.

    For each pair of photos the median log ratio r_pq over vertices both see; then least squares
    Σ n_pq (g_p - g_q - r_pq)² + λ Σ g_p² (gain compensation of Brown & Lowe 2007, in the logarithm).
    """
    rng = np.random.default_rng(seed)
    shared = np.flatnonzero((samples.weight > 0).sum(axis=1) >= 2)
    pick = rng.choice(shared, min(max_vertices, len(shared)), replace=False)
    valid = (samples.weight[pick] > 0) & np.all((samples.rgb[pick] > 12) & (samples.rgb[pick] < 245), axis=2)
    light = np.log(np.maximum(samples.rgb[pick], 1).astype(np.float32))
    first, second, ratio = [], [], []
    for a, b in combinations(range(samples.photo.shape[1]), 2):
        both = valid[:, a] & valid[:, b]
        p, q, r = samples.photo[pick[both], a], samples.photo[pick[both], b], light[both, a] - light[both, b]
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


def vertex_colors(
    samples: Samples, gains: Float[Array, "p 3"], *, chunk: int = 50_000
) -> tuple[UInt8[Array, "v 3"], Float[Array, "v"]]:
    """Robust weighted mean of each vertex's samples after dividing by the gains; and how far apart they lie.

    The weighted median per channel first, then the weighted mean of the samples within OUTLIER of it. The disagreement
    is the mean over samples of the largest difference of any channel from the median; NaN where there is no sample.
    """
    n = len(samples.weight)
    out, apart = np.zeros((n, 3), np.uint8), np.full(n, np.nan, np.float32)
    for start in range(0, n, chunk):
        part = slice(start, start + chunk)
        weight = samples.weight[part]
        rgb = samples.rgb[part] / gains[samples.photo[part]].astype(np.float32)
        middle = np.stack([_weighted_median(rgb[:, :, c], weight) for c in range(3)], axis=1)
        off = np.abs(rgb - middle[:, None]).max(axis=2)
        near = weight * (off <= OUTLIER)
        total = near.sum(axis=1)
        mean = (near[:, :, None] * rgb).sum(axis=1) / np.where(total > 0, total, 1)[:, None]
        out[part] = np.clip(np.rint(np.where(total[:, None] > 0, mean, middle)), 0, 255).astype(np.uint8)
        there = weight > 0
        number = there.sum(axis=1)
        apart[part] = np.where(number > 0, (off * there).sum(axis=1) / np.maximum(number, 1), np.nan)
    return out, apart


def _weighted_median(values: Float[Array, "n k"], weight: Float[Array, "n k"]) -> Float[Array, "n"]:
    order = np.argsort(np.where(weight > 0, values, np.inf), axis=1)
    values, weight = np.take_along_axis(values, order, 1), np.take_along_axis(weight, order, 1)
    half = weight.sum(axis=1, keepdims=True) / 2
    at = (np.cumsum(weight, axis=1) >= half).argmax(axis=1)
    return values[np.arange(len(values)), at]


def fill_unknown(
    colors: UInt8[Array, "v 3"], known: Bool[Array, "v"], vertices: Float[Array, "v 3"]
) -> UInt8[Array, "v 3"]:
    """Vertices without a colour take that of the nearest vertex that has one (mid grey where none has)."""
    from scipy.spatial import cKDTree

    if known.all():
        return colors
    if not known.any():
        return np.full_like(colors, 128)
    out = colors.copy()
    out[~known] = colors[known][cKDTree(vertices[known]).query(vertices[~known])[1]]
    return out
