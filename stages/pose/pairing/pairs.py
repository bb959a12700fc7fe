"""Proposed pairs: exhaustive, nearest by position, sequential by name, time and clip."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.frame.world_frame import enu_m, median_geodetic

Array = np.ndarray

SEQUENCE_WINDOW = 1  # photos before and after, in the order of names and of time, that a photo is first matched with
MAX_FRAME_GAP = 8  # frames of a clip that far apart, of those taken, are first matched: half a picture's width and more


def exhaustive_pairs(n: int) -> Int[Array, "m 2"]:
    """All pairs of ``n`` photos, in tiles of 10 x 10 so that a matcher's cache is used."""
    tile = 10
    tiles = range(0, n, tile)
    pairs = [
        (a, b)
        for low, high in itertools.combinations_with_replacement(tiles, 2)
        for a in range(low, min(low + tile, n))
        for b in range(high, min(high + tile, n))
        if a < b
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def unique_pairs(pairs: Int[Array, "m 2"]) -> Int[Array, "k 2"]:
    """Each unordered pair once, smaller photo first, sorted."""
    ordered = np.sort(pairs.reshape(-1, 2), axis=1)
    return np.unique(ordered[ordered[:, 0] != ordered[:, 1]], axis=0).astype(np.int64)


def nearest_pairs(positions: Float[Array, "n d"], n_neighbors: int) -> Int[Array, "m 2"]:
    """Pairs of every row with its nearest rows; rows with a NaN take no part."""
    from scipy.spatial import cKDTree

    finite_rows = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(finite_rows) < 2:
        return np.zeros((0, 2), np.int64)
    _, neighbor_rows = cKDTree(positions[finite_rows]).query(
        positions[finite_rows], min(n_neighbors + 1, len(finite_rows))
    )
    first = np.repeat(finite_rows, neighbor_rows.shape[1])
    return unique_pairs(np.stack([first, finite_rows[neighbor_rows].ravel()], axis=1))


def window_pairs(n: int, window: int) -> Int[Array, "m 2"]:
    """Pairs of photos at most ``window`` apart in name order, which often is the order they were taken in."""
    return np.array([(a, b) for a in range(n) for b in range(a + 1, min(a + window + 1, n))], np.int64).reshape(-1, 2)


def quadratic_overlap_pairs(n: int, max_step: int) -> Int[Array, "m 2"]:
    """Pairs of ``n`` frames in order that are 1, 2, 4, 8 … apart, up to ``max_step``."""
    steps = [2**k for k in range(max_step.bit_length()) if 2**k <= max_step]
    return np.array([(a, a + step) for step in steps for a in range(n - step)], np.int64).reshape(-1, 2)


def sequential_pairs(photos: list[PhotoRow]) -> Int[Array, "m 2"]:
    """Pairs of rows of photos that follow each other by name, in a clip, or by the time of taking within an hour."""
    times = np.array([np.datetime64(photo.taken_at or "NaT", "s") for photo in photos])
    by_time = np.argsort(times, kind="stable")  # those that tell none come last
    by_time_pairs = by_time[window_pairs(len(photos), SEQUENCE_WINDOW)]
    is_soon = times[by_time_pairs[:, 1]] - times[by_time_pairs[:, 0]] <= np.timedelta64(1, "h")
    return unique_pairs(
        np.concatenate([window_pairs(len(photos), SEQUENCE_WINDOW), by_time_pairs[is_soon], clip_pairs(photos)])
    )


def clip_pairs(photos: list[PhotoRow]) -> Int[Array, "m 2"]:
    """Pairs of rows of frames of one clip, up to MAX_FRAME_GAP frames apart by the time in it."""
    pair_table = [np.zeros((0, 2), np.int64)]
    for clip in sorted({photo.clip for photo in photos} - {""}):
        rows = [row for row, photo in enumerate(photos) if photo.clip == clip]
        by_time = np.array(sorted(rows, key=lambda row: photos[row].time_s))
        pair_table.append(by_time[quadratic_overlap_pairs(len(rows), MAX_FRAME_GAP)])
    return unique_pairs(np.concatenate(pair_table))


def gps_positions_m(photos: list[PhotoRow]) -> Float[Array, "n 2"]:
    """East and north in metres from the middle of all photos with GPS; NaN for the others."""
    geodetic = np.array([[p.latitude_deg, p.longitude_deg, 0.0] for p in photos])
    has_gps = np.isfinite(geodetic).all(axis=1)
    positions = np.full((len(photos), 2), np.nan)
    if has_gps.any():
        positions[has_gps] = enu_m(geodetic[has_gps], median_geodetic(geodetic[has_gps]))[:, :2]
    return positions
