"""Straight lines of all photos in one frame, and their misfit to directions in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.rays import normalize

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
