"""Vertex colors from photos: the best samples of every vertex, corrected for exposure, without outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Array = np.ndarray

MAX_COLOR_DEVIATION = 28.0  # of 255, of any channel from the median: a sample beyond is an outlier


@dataclass
class ColorSamples:
    """The best ``k`` color samples of every vertex: color, photo, weight (0: an empty slot)."""

    rgb: UInt8[Array, "v k 3"]
    photo: Int[Array, "v k"]
    weight: Float[Array, "v k"]

    @classmethod
    def empty(cls, n_vertices: int, k: int) -> ColorSamples:
        shape = (n_vertices, k)
        return cls(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.int32), np.zeros(shape, np.float32))

    def add(self, photo: int, vertex: Int[Array, "n"], rgb: UInt8[Array, "n 3"], weight: Float[Array, "n"]) -> None:
        """Add the samples of one photo; each replaces the weakest of its vertex if its weight is larger."""
        weakest = self.weight[vertex].argmin(axis=1)
        better = weight > self.weight[vertex, weakest]
        v, slot = vertex[better], weakest[better]
        self.rgb[v, slot], self.photo[v, slot], self.weight[v, slot] = rgb[better], photo, weight[better]


def vertex_colors(
    samples: ColorSamples, gains: Float[Array, "p 3"], *, chunk: int = 50_000
) -> tuple[UInt8[Array, "v 3"], Float[Array, "v"]]:
    """Color of each vertex, the robust mean of its samples divided by their gains, and the samples' disagreement.

    The color is the weighted mean of the samples within MAX_COLOR_DEVIATION of the weighted median of each channel. The
    disagreement is the mean over samples of the largest difference of any channel from the median; NaN without samples.
    """
    n = len(samples.weight)
    out, color_disagreement = np.zeros((n, 3), np.uint8), np.full(n, np.nan, np.float32)
    for start in range(0, n, chunk):
        part = slice(start, start + chunk)
        weight = samples.weight[part]
        rgb = samples.rgb[part] / gains[samples.photo[part]].astype(np.float32)
        middle = np.stack([_weighted_median(rgb[:, :, c], weight) for c in range(3)], axis=1)
        off = np.abs(rgb - middle[:, None]).max(axis=2)
        inlier_weight = weight * (off <= MAX_COLOR_DEVIATION)
        total = inlier_weight.sum(axis=1)
        mean = (inlier_weight[:, :, None] * rgb).sum(axis=1) / np.where(total > 0, total, 1)[:, None]
        out[part] = np.clip(np.rint(np.where(total[:, None] > 0, mean, middle)), 0, 255).astype(np.uint8)
        is_sample = weight > 0
        number = is_sample.sum(axis=1)
        color_disagreement[part] = np.where(number > 0, (off * is_sample).sum(axis=1) / np.maximum(number, 1), np.nan)
    return out, color_disagreement


def _weighted_median(values: Float[Array, "n k"], weight: Float[Array, "n k"]) -> Float[Array, "n"]:
    order = np.argsort(np.where(weight > 0, values, np.inf), axis=1)
    values, weight = np.take_along_axis(values, order, 1), np.take_along_axis(weight, order, 1)
    half = weight.sum(axis=1, keepdims=True) / 2
    at = (np.cumsum(weight, axis=1) >= half).argmax(axis=1)
    return values[np.arange(len(values)), at]


def fill_missing_colors(
    colors: UInt8[Array, "v 3"], has_color: Bool[Array, "v"], vertices: Float[Array, "v 3"]
) -> UInt8[Array, "v 3"]:
    """Colors in which a vertex without one has that of the nearest vertex with one; mid gray if none has one."""
    from scipy.spatial import cKDTree

    if has_color.all():
        return colors
    if not has_color.any():
        return np.full_like(colors, 128)
    out = colors.copy()
    out[~has_color] = colors[has_color][cKDTree(vertices[has_color]).query(vertices[~has_color])[1]]
    return out
