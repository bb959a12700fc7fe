"""Borders of photos: bars of one colour along the sides (frames, letterboxes), which do not show the scene."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8

Array = np.ndarray

NO_BORDER = (0, 0, 0, 0)
COLOR_TOLERANCE = 8  # gray levels within which JPEG keeps one colour
MIN_UNIFORM_SHARE = 0.99  # of the pixels of a row: in the colour of the bar
MIN_CHANGED_SHARE = 0.6  # of the pixels of a row: in other colours, where the picture begins
EDGE_ROWS = 8  # within which the picture begins: one block of JPEG
MAX_PAIRED_BAR_SHARE = 0.35  # of the photo, where the opposite side has a bar of the same colour
MAX_SINGLE_BAR_SHARE = 0.1  # of the photo, where it has none
CUT_MARGIN_SHARE = 0.003  # of the long edge: cut beyond the bar, where the picture blurs into it


def find_borders(rgb: UInt8[Array, "h w 3"]) -> tuple[int, int, int, int]:
    """Width in pixels of the bar of one colour at the left, top, right and bottom; 0 where a side has none.

    A bar ends in a straight edge across the whole photo, unlike sky or a wall. It is narrow, unless the opposite side
    has one of the same colour.
    """
    height, width = rgb.shape[:2]
    margin = max(2, math.ceil(CUT_MARGIN_SHARE * max(height, width)))
    top, bottom = _bar_heights(rgb)
    inner = rgb[top : height - bottom].swapaxes(0, 1)
    left, right = _bar_heights(inner)

    def add_margin(bar: int) -> int:
        return bar + margin if bar else 0

    return add_margin(left), add_margin(top), add_margin(right), add_margin(bottom)


def _bar_heights(rgb: UInt8[Array, "h w 3"]) -> tuple[int, int]:
    """Height in pixels of the bars at the top and at the bottom."""
    first, last = _bar_height(rgb), _bar_height(rgb[::-1])
    is_same_color = np.abs(rgb[0].astype(int).mean(axis=0) - rgb[-1].astype(int).mean(axis=0)).max() <= COLOR_TOLERANCE
    limit = (MAX_PAIRED_BAR_SHARE if first and last and is_same_color else MAX_SINGLE_BAR_SHARE) * len(rgb)
    return (first if first <= limit else 0), (last if last <= limit else 0)


def _bar_height(rgb: UInt8[Array, "h w 3"]) -> int:
    """Height in pixels of the bar at the top; 0 where the picture does not begin with a sharp edge."""
    bar_color = np.median(rgb[0], axis=0).astype(np.int16)
    count = 0
    for row in rgb[: math.ceil(MAX_PAIRED_BAR_SHARE * len(rgb)) + 1]:
        if (np.abs(row - bar_color).max(axis=1) <= COLOR_TOLERANCE).mean() < MIN_UNIFORM_SHARE:
            break
        count += 1
    changed = (np.abs(rgb[count : count + EDGE_ROWS] - bar_color).max(axis=2) > 2 * COLOR_TOLERANCE).mean(
        axis=1
    ) >= MIN_CHANGED_SHARE
    return count + int(np.argmax(changed)) if count > 1 and changed.any() else 0
