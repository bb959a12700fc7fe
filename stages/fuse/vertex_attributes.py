"""Colors and confidence of vertices, by the photos that see them.

A color is the mean of the best samples, corrected for exposure, without outliers. The confidence grows with the number
of photos, with their widest angle, and with how far their colors agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.geometry.cameras import normalize
from quoin.pipeline.imaging.filters import sample_nearest
from quoin.stages.fuse.visibility import VisibleVertices

Array = np.ndarray

MAX_COLOR_DEVIATION = 28.0  # of 255, of any channel from the median: a sample beyond is an outlier
STEREO_ERROR_SHARE = 0.006  # of the depth, that stereo may be off
SENSOR_SIGMAS = 2.0  # standard deviations that a sensor's depth may be off
HALF_CONFIDENCE_SINE = 0.5  # sin(angle / 2) · √views for a confidence of 1/2: two photos 41 degrees apart


# -- colors ------------------------------------------------------------------------------------------------------------


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


# -- confidence --------------------------------------------------------------------------------------------------------


@dataclass
class ViewDirections:
    """Number of photos that see each vertex, and the two of their directions (unit vectors) that are widest apart.

    Photos are added one at a time. A new direction replaces the nearer of the two if that widens the angle: the result
    is never wider than the widest of all pairs, and in practice hardly narrower.
    """

    views: Int[Array, "v"]
    first: Float[Array, "v 3"]
    second: Float[Array, "v 3"]

    @classmethod
    def empty(cls, n_vertices: int) -> ViewDirections:
        empty = np.zeros((n_vertices, 3), np.float32)
        return cls(np.zeros(n_vertices, np.int32), empty, empty.copy())

    def add(self, vertex: Int[Array, "n"], direction: Float[Array, "n 3"]) -> None:
        """Add a photo: the vertices it sees, and the unit vector from each towards its camera."""
        new = self.views[vertex] == 0
        self.first[vertex[new]] = self.second[vertex[new]] = direction[new]
        self.views[vertex] += 1
        a, b = self.first[vertex], self.second[vertex]
        between, to_a, to_b = (np.einsum("ij,ij->i", *pair) for pair in ((a, b), (a, direction), (b, direction)))
        wider = np.minimum(to_a, to_b) < between  # cosines: less is wider
        keep_a = wider & (to_a <= to_b)
        keep_b = wider & ~keep_a
        self.second[vertex[keep_a]] = direction[keep_a]
        self.first[vertex[keep_b]] = direction[keep_b]

    def angles(self) -> Float[Array, "v"]:
        """Radians between the two directions; 0 where fewer than two photos see the vertex."""
        chord = np.linalg.norm(self.first - self.second, axis=1)
        return 2 * np.arcsin(np.minimum(chord / 2, 1.0))


def depth_votes(
    visible: VisibleVertices, depth_map: Float[Array, "h w"], tolerance: float, sigma_per_unit: float | None = None
) -> Int[Array, "n"]:
    """Vote of a photo's depth map (0: no depth) on the vertices it sees: 1 confirms, -1 sees through, 0 neither.

    It confirms a vertex if its depth equals the vertex's within its error, or ``tolerance``, and sees through if it is
    larger. A smaller depth is no vote: something occludes the vertex. The error at depth z is STEREO_ERROR_SHARE · z,
    or for a sensor SENSOR_SIGMAS · ``sigma_per_unit`` · z².
    """
    photo_depth = sample_nearest(depth_map, visible.uv)
    beyond = photo_depth - visible.depth
    share = STEREO_ERROR_SHARE if sigma_per_unit is None else SENSOR_SIGMAS * sigma_per_unit * visible.depth
    allowed = np.maximum(share * visible.depth, tolerance)
    return np.where(photo_depth == 0, 0, (np.abs(beyond) <= allowed).astype(np.int32) - (beyond > allowed))


def directions_to(center: Float[Array, "3"], vertices: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Unit vectors from ``vertices`` to a camera's ``center``, float32, both in one frame."""
    return normalize((center - vertices).astype(np.float32))


def color_agreement_weight(disagreement: Float[Array, "v"], typical: float) -> Float[Array, "v"]:
    """1 where colors disagree no more than is ``typical`` (u), and a factor e^(-1/2) for every u beyond."""
    return np.exp(-np.maximum(disagreement - typical, 0) / (2 * typical))


def vertex_confidence(
    views: Int[Array, "v"], angles: Float[Array, "v"], disagreement: Float[Array, "v"], typical: float
) -> Float[Array, "v"]:
    """Confidence, 0..1: t² / (t² + HALF_CONFIDENCE_SINE²) · color agreement, t = sin(angle / 2) · √views.

    A point seen by two rays at an angle θ is known along their bisector to σ / (√2 sin(θ / 2)), σ across the rays (the
    least-squares intersection), and n photos in such a fan are √(n / 2) times better: t² is the inverse of the depth's
    variance. ``angles`` are in radians, ``disagreement`` and ``typical`` of colors, of 255 (``vertex_colors``,
    ``clean.typical_disagreement``). One photo gives 0.
    """
    information = np.sin(angles / 2) ** 2 * views
    geometric = information / (information + HALF_CONFIDENCE_SINE**2)
    return (geometric * color_agreement_weight(disagreement, typical)).astype(np.float32)
