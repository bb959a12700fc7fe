"""Straight lines: segments of a photo, those of all photos in one frame, and their misfit to directions in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from quoin.pipeline.geometry.cameras import normalize
from quoin.pipeline.geometry.mesh import connected_components
from quoin.pipeline.imaging.filters import rgb_to_gray

Array = np.ndarray


@dataclass(frozen=True)
class LineParams:
    """Errors of straight segments, and how many are used."""

    endpoint_sigma_px: float = 0.5  # error of an end of a segment, standard deviation
    pose_sigma_rad: float = math.radians(0.25)  # error of a segment's direction by poses and lenses, standard deviation
    min_vanishing_point_angle_rad: float = math.radians(8.0)  # nearer ones agree with any direction
    max_lines_per_photo: int = 250  # segments of a photo, the longest; a brick wall has thousands
    max_lines: int = 40_000  # segments of all photos


LINES = LineParams()


@dataclass(frozen=True)
class Lines:
    """S segments as seen from their cameras, in the frame of the cameras' poses.

    ``middle`` [S, 3] ray through the middle, ``along`` [S, 3] in the direction of the segment, ``normal`` [S, 3] of the
    plane through camera and segment: unit vectors orthogonal to one another. A line in space in direction d would be
    seen at ``arctan((d @ normal) / (d @ along))`` from the segment; ``sigma_rad`` [S] is the error of that angle.
    ``length_px`` [S], ``photo`` [S] index of the photo, ``n_photos`` in all.
    """

    middle: Float[Array, "s 3"]
    along: Float[Array, "s 3"]
    normal: Float[Array, "s 3"]
    sigma_rad: Float[Array, "s"]
    length_px: Float[Array, "s"]
    photo: Int[Array, "s"]
    n_photos: int

    def __len__(self) -> int:
        return len(self.photo)

    def select(self, rows: Array) -> Lines:
        """Some of the lines, by index or mask."""
        return Lines(
            self.middle[rows],
            self.along[rows],
            self.normal[rows],
            self.sigma_rad[rows],
            self.length_px[rows],
            self.photo[rows],
            self.n_photos,
        )

    def count_photos(self, rows: Bool[Array, "s"], min_lines: int) -> int:
        """How many photos have at least so many of ``rows``."""
        return int((np.bincount(self.photo[rows], minlength=self.n_photos) >= min_lines).sum())


def lines_from_segments(
    segments: Sequence[Float[Array, "_ 2 2"]], intrinsics: Float[Array, "n 4"], rotations: Float[Array, "n 3 3"]
) -> Lines:
    """Lines of n photos from the ends (x, y) of their segments in pixels, ``intrinsics`` in the same pixels.

    ``rotations`` [n, 3, 3] take the common frame into each camera's.
    """
    max_lines_per_photo = max(10, min(LINES.max_lines_per_photo, LINES.max_lines // max(len(segments), 1)))
    lengths = [np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) for ends in segments]
    kept_rows = [np.argsort(-length, kind="stable")[:max_lines_per_photo] for length in lengths]
    photo = np.repeat(np.arange(len(segments)), [len(rows) for rows in kept_rows])
    ends = np.concatenate([e[rows] for e, rows in zip(segments, kept_rows, strict=True)] or [np.zeros((0, 2, 2))])
    length = np.concatenate([e[rows] for e, rows in zip(lengths, kept_rows, strict=True)] or [np.zeros(0)])
    ideal = (ends - intrinsics[photo, None, 2:]) / intrinsics[photo, None, :2]
    rays = normalize(np.concatenate([ideal, np.ones((*ideal.shape[:2], 1))], axis=2))
    rays = np.einsum("sej,sjk->sek", rays, rotations[photo])
    middle, normal = normalize(rays.sum(axis=1)), normalize(np.cross(rays[:, 0], rays[:, 1]))
    sigma = np.hypot(np.sqrt(2) * LINES.endpoint_sigma_px / np.maximum(length, 1e-9), LINES.pose_sigma_rad)
    return Lines(middle, np.cross(normal, middle), normal, sigma, length, photo, len(segments))


def misfit_rad(lines: Lines, directions: Float[Array, "k 3"]) -> Float[Array, "k s"]:
    """Angle between each segment and how a line in each direction (unit) would be seen in its place; pi / 2 at most.

    Segments too near the vanishing point of a direction to say anything count as far off it.
    """
    across, along = np.abs(directions @ lines.normal.T), np.abs(directions @ lines.along.T)
    angle = np.arctan2(across, along)
    angle[np.hypot(across, along) < np.sin(LINES.min_vanishing_point_angle_rad)] = np.pi / 2
    return angle


# -- segments of one photo ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentParams:
    """What makes neighboring edge pixels one straight segment."""

    gradient_blur_px: float = 1.0  # standard deviation of the Gaussian of the derivatives (Canny 1986)
    min_gradient: float = 4.0  # gray levels of 255 per pixel
    max_gradient_angle_deg: float = 20.0  # between the gradients of two neighboring pixels of an edge
    max_bend_px: float = 0.35  # standard deviation of an edge's pixels across its line; more is a curve or a corner
    max_split_rounds: int = 7  # rounds in which edges that are not straight are halved
    min_length_px: float = 20.0  # length of a segment


SEGMENTS = SegmentParams()


class EdgePixels(NamedTuple):
    """Edge pixels: ``xy`` [n, 2] to a fraction of one, ``angle`` [n] of the gradient, ``row`` and ``column`` [n]."""

    xy: Float[Array, "n 2"]
    angle: Float[Array, "n"]
    row: Int[Array, "n"]
    column: Int[Array, "n"]


def find_segments(rgb: UInt8[Array, "h w 3"], use: Bool[Array, "h w"]) -> Float[Array, "s 2 2"]:
    """Ends (x, y) of the straight segments in a photo, in pixels (centre of the first at 0.5), where ``use`` is true.

    Edges are maxima of the gradient across it (Canny 1986), each placed by the parabola through three values; pixels
    beside each other that face the same way are one edge. An edge that is not straight is halved across its length,
    again and again, and what stays shorter than SEGMENTS.min_length_px is dropped. The line is that of least squares.
    """
    gray = rgb_to_gray(rgb)
    edges = thin_edges(gray, ndimage.binary_erosion(use, iterations=3, border_value=0))
    if len(edges.xy) < 2:
        return np.zeros((0, 2, 2))
    links = _links(edges, gray.shape)
    label = _parts(links, len(edges.xy))
    for _ in range(SEGMENTS.max_split_rounds):
        middle, along, _, deviation = _lines(edges.xy, label)
        is_bent = deviation[label] > SEGMENTS.max_bend_px
        if not is_bent.any():
            break
        side = ((edges.xy - middle[label]) * along[label]).sum(axis=1) > 0
        kept = (label[links[0]] == label[links[1]]) & (~is_bent[links[0]] | (side[links[0]] == side[links[1]]))
        links = links[:, kept]
        label = _parts(links, len(edges.xy))
    middle, along, _, deviation = _lines(edges.xy, label)
    at = ((edges.xy - middle[label]) * along[label]).sum(axis=1)
    low, high = ndimage.minimum(at, label, np.arange(len(middle))), ndimage.maximum(at, label, np.arange(len(middle)))
    good = (deviation <= SEGMENTS.max_bend_px) & (high - low >= SEGMENTS.min_length_px)
    ends = np.stack([low[good], high[good]], axis=1)
    return middle[good][:, None] + ends[:, :, None] * along[good][:, None]


def thin_edges(gray: Float[Array, "h w"], use: Bool[Array, "h w"]) -> EdgePixels:
    """Pixels whose gradient is a maximum across the edge, where ``use`` is true."""
    dy, dx = (ndimage.gaussian_filter(gray, SEGMENTS.gradient_blur_px, order=order) for order in ((1, 0), (0, 1)))
    size = np.hypot(dx, dy)
    is_strong = (size > SEGMENTS.min_gradient) & use
    is_strong[[0, -1]] = is_strong[:, [0, -1]] = False
    row, column = np.nonzero(is_strong)
    gx, gy, magnitude = dx[row, column], dy[row, column], size[row, column]
    largest = np.maximum(np.abs(gx), np.abs(gy))
    step_x, step_y = np.rint(gx / largest).astype(int), np.rint(gy / largest).astype(int)
    before, after = size[row - step_y, column - step_x], size[row + step_y, column + step_x]
    is_maximum = (magnitude >= before) & (magnitude > after)
    row, column, gx, gy, magnitude, before, after, step_x, step_y = (
        v[is_maximum] for v in (row, column, gx, gy, magnitude, before, after, step_x, step_y)
    )
    offset = np.clip(0.5 * (before - after) / np.minimum(before - 2 * magnitude + after, -1e-6), -0.5, 0.5)
    # a step may go 22 degrees off the gradient: the offset counts along the step, the edge is moved along the gradient
    reach = offset * (step_x * gx + step_y * gy) / np.hypot(gx, gy) ** 2
    xy = np.stack([column + 0.5 + reach * gx, row + 0.5 + reach * gy], axis=1)
    return EdgePixels(xy.astype(np.float64), np.arctan2(gy, gx), row, column)


def _links(edges: EdgePixels, shape: tuple[int, ...]) -> Int[Array, "2 m"]:
    """Pairs of neighbouring edge pixels that face the same way."""
    index = np.full((shape[0] + 1, shape[1] + 2), -1)
    index[edges.row, edges.column + 1] = np.arange(len(edges.row))
    pairs = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = index[edges.row + down, edges.column + 1 + right]
        here = np.nonzero(other >= 0)[0]
        other = other[here]
        same = np.cos(edges.angle[here] - edges.angle[other]) > np.cos(np.radians(SEGMENTS.max_gradient_angle_deg))
        pairs.append(np.stack([here[same], other[same]]))
    return np.concatenate(pairs, axis=1)


def _parts(links: Int[Array, "2 m"], count: int) -> Int[Array, "n"]:
    """Which connected part each edge pixel belongs to."""
    return connected_components(links[0], links[1], count)[1]


def _lines(
    xy: Float[Array, "n 2"], label: Int[Array, "n"]
) -> tuple[Float[Array, "k 2"], Float[Array, "k 2"], Float[Array, "k"], Float[Array, "k"]]:
    """Middle, direction, and standard deviation along and across of the points of each part."""
    count = np.bincount(label)
    middle = np.stack([np.bincount(label, weights=xy[:, i]) for i in (0, 1)], axis=1) / count[:, None]
    x, y = (xy - middle[label]).T
    xx, xy_, yy = (np.bincount(label, weights=v) / count for v in (x * x, x * y, y * y))
    angle = 0.5 * np.arctan2(2 * xy_, xx - yy)
    half, difference = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy_)
    spread = np.sqrt(np.maximum(half + difference, 0)), np.sqrt(np.maximum(half - difference, 0))
    return middle, np.stack([np.cos(angle), np.sin(angle)], axis=1), *spread
