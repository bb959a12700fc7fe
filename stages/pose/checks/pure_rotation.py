"""Detection of photos taken from one spot: the camera rotated but did not move, so no depth can be found.

Two such photos are related by a homography H that is a rotation between their cameras, H = K R K^-1 (Hartley and
Zisserman 2004, section 8.4). A plane seen from two places has a homography too, but no focal length makes that a
rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.stages.pose.colmap.database import read_two_view_geometries

Array = np.ndarray


@dataclass(frozen=True)
class PureRotationParams:
    """Limits between pairs that are pure rotations, collections taken from one spot, and others."""

    min_rotation_pair_inliers: int = 30  # verified matches from which on a pair is asked
    rotation_configs: tuple[int, ...] = (5, 6)  # COLMAP's two-view configurations PANORAMIC and PLANAR_OR_PANORAMIC
    focal_ratio_range: tuple[float, float] = (0.4, 4.0)  # focal lengths that are tried, per long edge
    n_focals: int = 93  # focal lengths that are tried, evenly spaced in their logarithm: 2.5 % apart
    max_rotation_deviation: float = 0.05  # largest over smallest singular value of H, less 1
    min_pure_rotation_share: float = 0.8  # of the strong pairs, from which on all photos may be from one spot
    min_moved_photos: int = 3  # photos that moved in half or more of their pairs, from which on they are not


PURE_ROTATION = PureRotationParams()


def rotation_deviation(homography: Float[Array, "3 3"], sizes: Int[Array, "2 2"]) -> float:
    """Deviation of a homography of pixels from a rotation at the focal length that fits best; 0 for a rotation.

    ``sizes`` are width and height of both photos, whose focal lengths are assumed equal relative to the long edge.
    """
    edges = sizes.max(axis=1)
    k_first, k_second = (
        np.array([[edge, 0, width / 2], [0, edge, height / 2], [0, 0, 1.0]])
        for (width, height), edge in zip(sizes.tolist(), edges.tolist(), strict=True)
    )
    centered = np.linalg.inv(k_second) @ homography @ k_first
    scale = np.ones((PURE_ROTATION.n_focals, 3))
    scale[:, :2] = np.geomspace(*PURE_ROTATION.focal_ratio_range, PURE_ROTATION.n_focals)[:, None]
    values = np.linalg.svd(centered * scale[:, None, :] / scale[:, :, None], compute_uv=False)
    return float((values[:, 0] / np.maximum(values[:, 2], 1e-12)).min() - 1.0)


def find_pure_rotations(database: Path) -> tuple[Int[Array, "m 2"], Bool[Array, "m"]]:
    """Photo ids of the strong pairs in a database of verified matches, and between which the camera only rotated."""
    strong = read_two_view_geometries(database, PURE_ROTATION.min_rotation_pair_inliers)
    is_rotation = [
        pair.config in PURE_ROTATION.rotation_configs
        and pair.homography is not None
        and rotation_deviation(pair.homography, pair.sizes) < PURE_ROTATION.max_rotation_deviation
        for pair in strong
    ]
    return np.array([pair.photo_ids for pair in strong], np.int64).reshape(-1, 2), np.array(is_rotation, bool)


def has_single_viewpoint(photos: Int[Array, "m 2"], is_rotation: Bool[Array, "m"]) -> bool:
    """Whether all photos but a few were taken from one spot, by strong pairs and which of them are pure rotations."""
    if not len(photos) or is_rotation.mean() < PURE_ROTATION.min_pure_rotation_share:
        return False
    n_pairs = np.bincount(photos.ravel())
    n_moved = np.bincount(photos[~is_rotation].ravel(), minlength=len(n_pairs))
    return int(((n_pairs > 0) & (2 * n_moved >= n_pairs)).sum()) < PURE_ROTATION.min_moved_photos
