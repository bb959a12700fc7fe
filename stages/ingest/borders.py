"""Frames and letterboxes: bars of one colour along the sides of a photo, which are not the scene."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8

Array = np.ndarray

NO_BORDER = (0, 0, 0, 0)
TOLERANCE = 8  # grey levels within which JPEG keeps one colour
CONSTANT = 0.99  # share of a row in its colour
CHANGED = 0.6  # share of a row that has left the colour where the picture begins
EDGE_ROWS = 8  # in which that happens: one block of JPEG
MAX_PAIRED = 0.35  # of the side, where the opposite side has a bar of the same colour
MAX_ALONE = 0.1
MARGIN = 0.003  # of the long edge: what is cut beyond the bar, where the picture is blurred into it


def borders(rgb: UInt8[Array, "h w 3"]) -> tuple[int, int, int, int]:
    """Pixels at the left, top, right and bottom that are a bar of one colour; 0 where a side has none.

    A bar ends in a straight edge across the whole photo, as no sky and no wall does; it is short, unless there is
    another one like it at the opposite side.
    """
    height, width = rgb.shape[:2]
    margin = max(2, math.ceil(MARGIN * max(height, width)))
    top, bottom = _bars(rgb)
    inner = rgb[top : height - bottom].swapaxes(0, 1)
    left, right = _bars(inner)

    def cut(bar: int) -> int:
        return bar + margin if bar else 0

    return cut(left), cut(top), cut(right), cut(bottom)


def _bars(rgb: UInt8[Array, "h w 3"]) -> tuple[int, int]:
    """Rows of the bars at the top and at the bottom."""
    first, last = _bar(rgb), _bar(rgb[::-1])
    alike = np.abs(rgb[0].astype(int).mean(axis=0) - rgb[-1].astype(int).mean(axis=0)).max() <= TOLERANCE
    limit = (MAX_PAIRED if first and last and alike else MAX_ALONE) * len(rgb)
    return (first if first <= limit else 0), (last if last <= limit else 0)


def _bar(rgb: UInt8[Array, "h w 3"]) -> int:
    """Rows from the top in one colour, if there the picture begins all at once; else 0."""
    colour = np.median(rgb[0], axis=0).astype(np.int16)
    count = 0
    for row in rgb[: math.ceil(MAX_PAIRED * len(rgb)) + 1]:
        if (np.abs(row - colour).max(axis=1) <= TOLERANCE).mean() < CONSTANT:
            break
        count += 1
    changed = (np.abs(rgb[count : count + EDGE_ROWS] - colour).max(axis=2) > 2 * TOLERANCE).mean(axis=1) >= CHANGED
    return count + int(np.argmax(changed)) if count > 1 and changed.any() else 0
