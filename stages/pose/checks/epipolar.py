"""How well camera poses explain verified matches: the share of matches that lie near their epipolar lines.

Points that are triangulated from wrong poses are few, and those few fit; the matches that gave no point tell. Given
poses that are exact leave 0.96 and more of the verified matches within 4 pixels of their lines, wrong ones (a photo
turned by its EXIF, two names swapped, a focal length of another size) up to 0.3, those tracked by a phone all between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.cameras import centers_world
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import read_verified_matches

Array = np.ndarray


@dataclass(frozen=True)
class EpipolarParams:
    """Limits of the check of given poses."""

    max_distance_px: float = 4.0  # of a match from its epipolar line (COLMAP verifies matches with the same)
    min_pair_matches: int = 15  # verified matches of a pair that is asked
    min_exact_share: float = 0.9  # of a photo's matches, from which on its pose is exact
    max_wrong_share: float = 0.3  # of a photo's matches, below which its pose is wrong
    min_relative_baseline: float = 1e-6  # of the extent of the camera centers; closer ones saw from one place


EPIPOLAR = EpipolarParams()


@dataclass(frozen=True)
class PairShares:
    """Pairs of ``n_photos`` photos, by their rows, and the share of each pair's matches near their epipolar lines."""

    rows: Int[Array, "p 2"]
    shares: Float[Array, "p"]
    n_photos: int

    def of_photos(self, is_wrong: Bool[Array, "k"] | None = None) -> Float[Array, "k"]:
        """Median over the pairs of each photo with those that are not wrong; NaN for a photo without such pairs."""
        counted = np.ones(self.rows.shape, bool) if is_wrong is None else ~is_wrong[self.rows[:, ::-1]]
        rows, shares = self.rows[counted], np.repeat(self.shares, 2)[counted.ravel()]
        medians = np.full(self.n_photos, np.nan)
        for row in np.unique(rows):
            medians[row] = np.median(shares[rows == row])
        return medians

    def wrong_photos(self) -> Bool[Array, "k"]:
        """Photos whose matches with those that are not wrong contradict their poses.

        The one that contradicts most others is taken out first: a photo that matches wrong ones only is not wrong.
        """
        is_wrong = np.zeros(self.n_photos, bool)
        contradicting = self.rows[self.shares < EPIPOLAR.max_wrong_share]
        while True:
            suspects = np.flatnonzero(~is_wrong & (self.of_photos(is_wrong) < EPIPOLAR.max_wrong_share))
            if not len(suspects):
                return is_wrong
            rows = contradicting[~is_wrong[contradicting].any(axis=1)]
            is_wrong[suspects[np.bincount(rows.ravel(), minlength=self.n_photos)[suspects].argmax()]] = True


def epipolar_shares(
    database: Path, poses: Float[Array, "k 3 4"], cameras: list[Camera], photo_ids: Int[Array, "k"]
) -> PairShares:
    """The share of verified matches near the epipolar lines of ``poses``, for each pair with enough of them."""
    centers = centers_world(poses)
    min_baseline = EPIPOLAR.min_relative_baseline * float(np.ptp(centers, axis=0).max())
    row_of = {int(photo): row for row, photo in enumerate(photo_ids)}
    pairs, shares = [], []
    for photos, *pixels in read_verified_matches(database, EPIPOLAR.min_pair_matches):
        rows = [row_of[photo] for photo in photos if photo in row_of]
        if len(rows) == 2:
            directions = [cameras[row].cam_from_img(xy) for row, xy in zip(rows, pixels, strict=True)]
            focals = np.array([cameras[row].mean_focal_px for row in rows])
            distances = epipolar_distances_px(poses[rows], directions, focals, min_baseline)
            pairs.append(rows)
            shares.append(float((distances <= EPIPOLAR.max_distance_px).mean()))  # NaN is far: seen from nowhere
    return PairShares(np.array(pairs, np.int64).reshape(-1, 2), np.array(shares), len(photo_ids))


def epipolar_distances_px(
    poses: Float[Array, "2 3 4"],
    directions: list[Float[Array, "n 2"]],
    focals_px: Float[Array, "2"],
    min_baseline: float,
) -> Float[Array, "n"]:
    """The larger distance of each match from its epipolar lines in both photos, pixels.

    Of two photos from one place it is the distance between where the second sees a point and where the first says.
    """
    x, y = (np.column_stack([xy, np.ones(len(xy))]) for xy in directions)
    rotation = poses[1, :, :3] @ poses[0, :, :3].T
    translation = poses[1, :, 3] - rotation @ poses[0, :, 3]
    if np.linalg.norm(translation) <= min_baseline:
        turned = x @ rotation.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.linalg.norm(turned[:, :2] / turned[:, 2:] - y[:, :2], axis=1) * focals_px[1]
    essential = np.cross(np.eye(3), translation) @ rotation  # y^T E x = 0
    lines_second, lines_first = x @ essential.T, y @ essential
    residuals = np.abs((y * lines_second).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(
            residuals / np.linalg.norm(lines_first[:, :2], axis=1) * focals_px[0],
            residuals / np.linalg.norm(lines_second[:, :2], axis=1) * focals_px[1],
        )
