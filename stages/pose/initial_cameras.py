"""The cameras a reconstruction starts from: one per group of the photo table."""

from __future__ import annotations

import math

import numpy as np

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.colmap.camera import Camera

DEFAULT_FOCAL_FACTOR = (
    1.2  # times the long edge: a phone's or a kit lens's view of about 45 degrees, COLMAP's own default
)


def initial_cameras(photos: list[PhotoRow], *, share: bool = True) -> tuple[list[Camera], list[int]]:
    """Cameras and, for every photo, which one it uses.

    Photos of a group and size share one; with ``share`` false those without a focal length in EXIF each get their own,
    but for frames of a clip, which one camera took.
    """
    keys = [
        (
            photo.group,
            photo.width,
            photo.height,
            -1 if share or has_shared_camera(photo) else photo.photo_id,
        )
        for photo in photos
    ]
    order = sorted(set(keys))
    cameras = []
    for key in order:
        focals = [p.focal_px for p, k in zip(photos, keys, strict=True) if k == key and has_focal(p)]
        width, height = key[1], key[2]
        focal = float(np.median(focals)) if focals else DEFAULT_FOCAL_FACTOR * max(width, height)
        cameras.append(Camera("SIMPLE_RADIAL", width, height, (focal, width / 2, height / 2, 0.0), bool(focals)))
    return cameras, [order.index(key) for key in keys]


def has_shared_camera(photo: PhotoRow) -> bool:
    """Whether a photo is known to be of one camera with the others of its group."""
    return has_focal(photo) or bool(photo.clip)


def has_focal(photo: PhotoRow) -> bool:
    """Whether EXIF gave a usable focal length."""
    return not math.isnan(photo.focal_px) and photo.focal_px > 0
