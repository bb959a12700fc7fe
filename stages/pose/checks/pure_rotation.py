"""Photos taken from one spot: the camera turned but did not move, so nothing tells how far away anything is.

Two such photos are related by a homography H that is a rotation between their cameras, H = K R K^-1 (Hartley and
Zisserman 2004, section 8.4). A plane seen from two places has a homography too, but no focal length makes that a
rotation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.stages.pose.colmap.database import read_two_view_geometries

Array = np.ndarray

MIN_ROTATION_PAIR_INLIERS = 30
ROTATION_CONFIGS = (5, 6)  # COLMAP's two-view configurations PANORAMIC and PLANAR_OR_PANORAMIC
FOCAL_CANDIDATES = np.geomspace(0.4, 4.0, 93)  # of the long edge, that are tried
MAX_ROTATION_DEVIATION = (
    0.05  # ratio of H's largest to its smallest singular value less 1, up to which it is a rotation
)
MIN_PURE_ROTATION_SHARE = 0.8  # of the strong pairs; with more turns,
MIN_MOVED_PHOTOS = 3  # and fewer photos that moved in half or more of their pairs, all were taken from one spot


def rotation_deviation(homography: Float[Array, "3 3"], sizes: Int[Array, "2 2"]) -> float:
    """How far a homography of pixels is from a rotation, 0 for one, for the focal length that suits it best.

    ``sizes`` are width and height of both photos, which are taken to have one focal length relative to the long edge.
    """
    edges = sizes.max(axis=1)
    k_first, k_second = (
        np.array([[edge, 0, width / 2], [0, edge, height / 2], [0, 0, 1.0]])
        for (width, height), edge in zip(sizes.tolist(), edges.tolist(), strict=True)
    )
    centered = np.linalg.inv(k_second) @ homography @ k_first
    scale = np.ones((len(FOCAL_CANDIDATES), 3))
    scale[:, :2] = FOCAL_CANDIDATES[:, None]
    values = np.linalg.svd(centered * scale[:, None, :] / scale[:, :, None], compute_uv=False)
    return float((values[:, 0] / np.maximum(values[:, 2], 1e-12)).min() - 1.0)


def find_pure_rotations(database: Path) -> tuple[Int[Array, "m 2"], Bool[Array, "m"]]:
    """Photo ids of the strong pairs in a database of verified matches, and between which the camera only rotated."""
    strong = read_two_view_geometries(database, MIN_ROTATION_PAIR_INLIERS)
    is_rotation = [
        pair.config in ROTATION_CONFIGS
        and pair.homography is not None
        and rotation_deviation(pair.homography, pair.sizes) < MAX_ROTATION_DEVIATION
        for pair in strong
    ]
    return np.array([pair.photo_ids for pair in strong], np.int64).reshape(-1, 2), np.array(is_rotation, bool)


def has_single_viewpoint(photos: Int[Array, "m 2"], is_rotation: Bool[Array, "m"]) -> bool:
    """Whether a collection with these strong pairs was taken from one spot, but for a few photos that do not help."""
    if not len(photos) or is_rotation.mean() < MIN_PURE_ROTATION_SHARE:
        return False
    n_pairs = np.bincount(photos.ravel())
    n_moved = np.bincount(photos[~is_rotation].ravel(), minlength=len(n_pairs))
    return int(((n_pairs > 0) & (2 * n_moved >= n_pairs)).sum()) < MIN_MOVED_PHOTOS
