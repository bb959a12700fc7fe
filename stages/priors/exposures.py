"""Exposure and white balance of every photo, from colors of SfM points: one estimate for all blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.imaging.exposure import photo_gains

Array = np.ndarray

VIEWS_PER_POINT = 6  # observations of a point that are compared
EXPOSURE_EDGE_PX = 400  # longest edge of the photos colors are read from: a pixel averages the feature's surroundings


def sample_views(track_point: Int[Array, "t"], seed: int) -> Int[Array, "s 2"]:
    """Up to VIEWS_PER_POINT random observations of every point: rows (observation, rank among those of its point)."""
    shuffled = np.random.default_rng(seed).permutation(len(track_point))
    order = shuffled[np.argsort(track_point[shuffled], kind="stable")]
    point = track_point[order]
    first = np.flatnonzero(np.diff(point, prepend=-1))
    place = np.arange(len(point)) - np.repeat(first, np.diff(first, append=len(point)))
    few = place < VIEWS_PER_POINT
    return np.stack([order[few], place[few]], axis=1)


def estimate_exposures(
    read: Callable[[int], UInt8[Array, "h w 3"]],
    sizes: Int[Array, "n 2"],
    track_photo: Int[Array, "t"],
    track_point: Int[Array, "t"],
    track_xy: Float[Array, "t 2"],
    *,
    seed: int,
) -> Float[Array, "n 3"]:
    """Exposure factor of every photo and channel, about 1; exactly 1 for a photo that shares no point with another.

    ``read(photo)`` returns its pixels at any size; ``track_xy`` are pixels of images of ``sizes`` (width, height).
    """
    observation, place = sample_views(track_point, seed).T
    points, row = np.unique(track_point[observation], return_inverse=True)
    shape = len(points), VIEWS_PER_POINT
    rgb, photo, is_observed = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.int64), np.zeros(shape, bool)
    photo[row, place], is_observed[row, place] = track_photo[observation], True
    for index in np.unique(track_photo[observation]):
        of_photo = track_photo[observation] == index
        image = read(int(index))
        ratio = np.array(image.shape[1::-1]) / sizes[index]
        column, line = (track_xy[observation[of_photo]] * ratio).astype(np.int64).clip(0).T
        column, line = column.clip(max=image.shape[1] - 1), line.clip(max=image.shape[0] - 1)
        rgb[row[of_photo], place[of_photo]] = image[line, column]
    return photo_gains(rgb, photo, is_observed, len(sizes), seed=seed)
