"""Planes that a scene may consist of: where points pile up along directions that its surfaces face."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

Array = np.ndarray
MAX_NORMAL_ANGLE_DEG = 20.0  # between a point's normal and the plane's: more is another surface
BINS_PER_CELL = 4
BEHIND_MARGIN_CELLS, MAX_BEHIND_SHARE = (
    3.0,
    0.1,
)  # points behind a plane that bounds the scene: so far, so many for one on it


class PlaneSet(NamedTuple):
    """Planes normal · x = offset of the world; unit normals towards the side they are seen from."""

    normal: Float[Array, "k 3"]
    offset: Float[Array, "k"]
    support: Float[Array, "k"]  # weight of the points on them


def detect_planes(
    directions: Float[Array, "d 3"],
    points: Float[Array, "n 3"],
    normals: Float[Array, "n 3"],
    weights: Float[Array, "n"],
    cell: float,
    min_support: float,
) -> PlaneSet:
    """Planes that face one of ``directions`` (unit), by how many points lie on each (Furukawa et al. 2009).

    Along every direction the points that face it are counted by their offset, over a Gaussian of half a ``cell``; every
    peak that carries ``min_support`` within a cell is a plane, if it is the highest within two cells.
    """
    found = [(np.zeros((0, 3)), np.zeros(0), np.zeros(0))]
    for direction in directions:
        facing = normals @ direction > np.cos(np.radians(MAX_NORMAL_ANGLE_DEG))
        if not facing.any():
            continue
        offset, weight = points[facing] @ direction, weights[facing]
        step, low = cell / BINS_PER_CELL, offset.min() - 2 * cell
        n_bins = int(np.ceil((offset.max() + 2 * cell - low) / step))
        count = np.bincount(((offset - low) / step).astype(np.int64), weight, n_bins)
        height = gaussian_filter1d(count, BINS_PER_CELL / 2)
        peaks: list[tuple[float, float]] = []
        for bin_ in np.argsort(-height, kind="stable"):
            if height[bin_] <= 0:
                break
            peak_offset = low + (bin_ + 0.5) * step
            on = np.abs(offset - peak_offset) < cell
            if all(abs(peak_offset - chosen_offset) > 2 * cell for chosen_offset, _ in peaks):
                if weight[on].sum() < min_support:
                    break
                peaks.append((float(np.average(offset[on], weights=weight[on])), float(weight[on].sum())))
        if peaks:
            peak_offset, support = np.array(peaks).T
            found.append((np.tile(direction, (len(peak_offset), 1)), peak_offset, support))
    return PlaneSet(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def bounding_planes(planes: PlaneSet, points: Float[Array, "n 3"], cell: float) -> PlaneSet:
    """The planes that the scene ends at: behind which hardly anything lies, but that points lie on.

    Floor and ceiling of a room are such, and its outer walls; of a table or an inner corner much lies behind.
    """
    is_bounding = []
    for normal, offset, support in zip(*planes, strict=True):
        behind = int((points @ normal < offset - BEHIND_MARGIN_CELLS * cell).sum())
        is_bounding.append(behind < MAX_BEHIND_SHARE * support)
    chosen = np.array(is_bounding, bool)
    return PlaneSet(planes.normal[chosen], planes.offset[chosen], planes.support[chosen])
