"""Colour of a room's surfaces and furniture at points. Linear reflectances; walls are nearly uniform.

A finish maps the tint of pieces to the colour of their points, given the points in the room's frame in metres, the
number of each point's piece, and the solid noise of materials.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from quoin.tools.synthetic.materials import SolidNoise, cell_random

Array = np.ndarray
PLANK_M, BOARD_M, JOINT_M = 0.14, 1.7, 0.003  # width and length of a floor board, the gap between two


def finish_albedo(
    points: Float[Array, "n 3"],
    material: Int[Array, "n"],
    tint: Float[Array, "n 3"],
    piece: Int[Array, "n"],
    noise: SolidNoise,
) -> Float[Array, "n 3"]:
    """Reflectance of points on surfaces of ``material`` (index into FINISHES)."""
    out = np.empty((len(points), 3), np.float32)
    for index, name in enumerate(FINISHES):
        chosen = np.flatnonzero(material == index)
        if len(chosen):
            out[chosen] = _FINISH[name](points[chosen], tint[chosen], piece[chosen], noise)
    return np.clip(out, 0.01, 0.95)


def _paint(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    """Wall paint: the roller's traces differ by half a gray level of 255."""
    return tint * (1 + 0.005 * noise.coarse(points))[:, None]


def _lacquer(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    return tint


def _planks(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    row = np.floor(points[:, 1] / PLANK_M)
    along = points[:, 0] / BOARD_M + 0.37 * (row % 5)
    board = np.floor(along)
    tone = cell_random(row, board)
    row_fraction = points[:, 1] / PLANK_M - row
    joint = (row_fraction * PLANK_M < JOINT_M) | ((along - board) * BOARD_M < JOINT_M)
    grain = _grain(points, np.array([0.1, 1.0, 1.0], np.float32), tone, noise)
    return tint * (0.72 + 0.4 * tone + 0.14 * grain)[:, None] * np.where(joint, 0.4, 1.0)[:, None]


def _wood(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    grain = _grain(points, np.array([0.3, 1.0, 0.3], np.float32), cell_random(piece, piece + 3), noise)
    return tint * (1 + 0.16 * grain)[:, None]


def _grain(points: Array, stretch: Array, shift: Array, noise: SolidNoise) -> Array:
    """Noise stretched along an axis, shifted for every board."""
    return noise.fine((points * stretch + 5 * shift[:, None]).astype(np.float32))


def _fabric(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    return tint * (1 + 0.03 * noise.coarse(points) + 0.015 * noise.fine(points))[:, None]


def _rug(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    u, v = points[:, 0] / 0.17, points[:, 1] / 0.17
    column, row = np.floor(u), np.floor(v)
    diamond = np.abs(u - column - 0.5) + np.abs(v - row - 0.5)
    kind = cell_random(column, row)
    share = np.where(diamond < 0.2 + 0.25 * kind, 0.9, np.where(diamond < 0.45, 0.1, 0.5)) + 0.12 * noise.fine(points)
    accent_color = np.array([0.55, 0.48, 0.36], np.float32)
    return tint + (accent_color - tint) * np.clip(share, 0, 1)[:, None]


def _print(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    """Prints and book covers: patches of three colours with soft and hard edges."""
    moved = (0.6 * points + 3 * cell_random(piece, piece + 1)[:, None]).astype(np.float32)
    broad, fine = noise.fine(moved), noise.fine((2.1 * moved + 1).astype(np.float32))
    first_color = 0.1 + 0.4 * np.stack([cell_random(piece, piece + k) for k in (5, 6, 7)], axis=1)
    second_color = 0.05 + 0.3 * np.stack([cell_random(piece + k, piece) for k in (8, 9, 10)], axis=1)
    mixed = tint + (first_color - tint) * (1 / (1 + np.exp(-6 * broad)))[:, None]
    return np.where((fine > 0.5)[:, None], second_color, mixed) * (1 + 0.15 * fine)[:, None]


def _book(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    """Spines of books: bands of colour, and a column of letters."""
    band = cell_random(np.floor(points[:, 2] / 0.035), piece)
    sign = cell_random(np.floor(points[:, 2] / 0.008), np.floor(points[:, 0] / 0.006), piece)
    light = np.where(band < 0.2, 0.45, np.where(band > 0.75, 1.5, 1.0))
    light = light + 0.5 * ((band > 0.4) & (sign > 0.6))
    return tint * light[:, None] * (1 + 0.1 * noise.fine(points))[:, None]


def _leaf(points: Array, tint: Array, piece: Array, noise: SolidNoise) -> Array:
    return tint * (0.9 + 0.7 * np.tanh(1.2 * noise.fine(points)))[:, None]


_FINISH: dict[str, Callable[[Array, Array, Array, SolidNoise], Array]] = {
    "paint": _paint,
    "lacquer": _lacquer,
    "pane": _lacquer,
    "planks": _planks,
    "wood": _wood,
    "fabric": _fabric,
    "rug": _rug,
    "print": _print,
    "book": _book,
    "leaf": _leaf,
}
FINISHES = list(_FINISH)
