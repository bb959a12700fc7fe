"""Photos taken from one spot: the camera turned but did not move, so nothing tells how far away anything is.

Two such photos are related by a homography H that is a rotation between their cameras, H = K R K^-1 (Hartley and
Zisserman 2004, section 8.4). A plane seen from two places has a homography too, but no focal length makes that a
rotation.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.stages.pose.colmap.database import to_read

Array = np.ndarray

IMAGES_PER_PAIR = 2147483647  # COLMAP: pair id = this times the smaller image id, plus the larger
STRONG_INLIERS = 30
PLANAR = (5, 6)  # COLMAP's two-view configurations PANORAMIC and PLANAR_OR_PANORAMIC
FOCALS = np.geomspace(0.4, 4.0, 93)  # of the long edge, that are tried
MAX_STRETCH = 0.05  # ratio of H's largest to its smallest singular value less 1, up to which it is a rotation
TURNS_SHARE = 0.8  # of the strong pairs; with more turns,
MIN_MOVED = 3  # and fewer photos that moved in half or more of their pairs, all were taken from one spot


def stretch(homography: Float[Array, "3 3"], sizes: Int[Array, "2 2"]) -> float:
    """How far a homography of pixels is from a rotation, 0 for one, for the focal length that suits it best.

    ``sizes`` are width and height of both photos, which are taken to have one focal length relative to the long edge.
    """
    edges = sizes.max(axis=1)
    one, other = (
        np.array([[edge, 0, width / 2], [0, edge, height / 2], [0, 0, 1.0]])
        for (width, height), edge in zip(sizes.tolist(), edges.tolist(), strict=True)
    )
    centred = np.linalg.inv(other) @ homography @ one
    scale = np.ones((len(FOCALS), 3))
    scale[:, :2] = FOCALS[:, None]
    values = np.linalg.svd(centred * scale[:, None, :] / scale[:, :, None], compute_uv=False)
    return float((values[:, 0] / np.maximum(values[:, 2], 1e-12)).min() - 1.0)


def turns(database: Path) -> tuple[Int[Array, "m 2"], Bool[Array, "m"]]:
    """Photo ids of strong pairs in a database of verified matches, and whether each time the camera only turned."""
    with closing(to_read(database)) as connection:
        query = "SELECT image_id, width, height FROM images JOIN cameras USING (camera_id)"
        size = {row[0]: row[1:] for row in connection.execute(query)}
        query = "SELECT pair_id, config, H FROM two_view_geometries WHERE rows >= ?"
        strong = connection.execute(query, (STRONG_INLIERS,)).fetchall()
    photos, turned = np.zeros((len(strong), 2), np.int64), np.zeros(len(strong), bool)
    for row, (pair_id, config, data) in enumerate(strong):
        second = pair_id % IMAGES_PER_PAIR
        first = (pair_id - second) // IMAGES_PER_PAIR
        photos[row] = first - 1, second - 1
        if config in PLANAR and data:
            sizes = np.array([size[first], size[second]])
            turned[row] = stretch(np.frombuffer(data).reshape(3, 3), sizes) < MAX_STRETCH
    return photos, turned


def from_one_spot(photos: Int[Array, "m 2"], turned: Bool[Array, "m"]) -> bool:
    """Whether a collection with these strong pairs was taken from one spot, but for a few photos that do not help."""
    if not len(photos) or turned.mean() < TURNS_SHARE:
        return False
    n_pairs = np.bincount(photos.ravel())
    n_moved = np.bincount(photos[~turned].ravel(), minlength=len(n_pairs))
    return int(((n_pairs > 0) & (2 * n_moved >= n_pairs)).sum()) < MIN_MOVED
