"""Multiresolution IsoSurface Extraction (Occupancy Networks, Mescheder et al. 2019, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray
CELL_CORNERS = np.array(list(product((0, 1), repeat=3)))
HALF_CELL_OFFSETS = np.array(list(product((0, 1, 2), repeat=3)))


def mise(
    value: Callable[[Int[Array, "n 3"]], Float[Array, "n"]],
    cells: tuple[int, int, int],
    stride: int = 8,
    level: float = 0.0,
) -> tuple[Float[Array, "x y z"], int]:
    """Samples of ``value`` on a lattice of ``cells`` for marching cubes at ``level``, and the number of evaluations.

    ``value`` takes sample indices of the lattice, 0 .. cells along each axis, many at once and none twice. Every
    ``stride``-th of them, a power of two, is evaluated first; then the spacing is halved until it is 1. Cells with
    corners on both sides of ``level`` are evaluated in full when they are halved, all others are interpolated; where a
    sample is on the other side than its interpolated surroundings, these are evaluated too.

    So every cell of the result that holds surface has eight true corners, and marching cubes gives the same as on the
    full lattice, except for parts of the surface between the samples of the coarse grid. Eager only.
    """
    if stride.bit_count() != 1 or any(n % stride for n in cells):
        raise ValueError(f"a stride of {stride} is no power of two, or does not divide {cells} cells")
    is_evaluated = np.ones([n // stride + 1 for n in cells], bool)
    values = value(np.argwhere(is_evaluated) * stride).reshape(is_evaluated.shape)
    n_queried = is_evaluated.size
    mixed_cells = np.argwhere(_straddles(np.stack(_corners(values), axis=-1), level))
    while stride > 1:
        stride //= 2
        values, is_evaluated = _upsampled(values), _upsampled_mask(is_evaluated)
        active = np.zeros([n - 1 for n in is_evaluated.shape], bool)
        wanted = _marked(2 * mixed_cells[:, None] + HALF_CELL_OFFSETS, is_evaluated.shape) & ~is_evaluated
        while wanted.any():
            queried = np.argwhere(wanted)
            values[wanted] = value(queried * stride)
            is_evaluated |= wanted
            n_queried += len(queried)
            around = np.argwhere(_cells_around(wanted))
            corners = around[:, None] + CELL_CORNERS
            mixed = _straddles(values[tuple(corners.T)].T, level)
            active[tuple(around[mixed].T)] = True
            wanted = _marked(corners[mixed], is_evaluated.shape) & ~is_evaluated
        mixed_cells = np.argwhere(active)
    return values, n_queried


def _straddles(corners: Float[Array, "*cells 8"], level: float) -> Bool[Array, "*cells"]:
    """True for cells with corners on both sides of ``level``; on it counts as either."""
    return (corners.min(axis=-1) <= level) & (corners.max(axis=-1) >= level)


def _corners(samples: Array) -> list[Array]:
    """The eight corners of all cells, each [x-1, y-1, z-1], in the order of CELL_CORNERS."""
    return [
        samples[tuple(slice(c, n - 1 + c) for c, n in zip(corner, samples.shape, strict=True))]
        for corner in CELL_CORNERS
    ]


def _cells_around(samples: Bool[Array, "x y z"]) -> Bool[Array, "a b c"]:
    """Cells with any of ``samples`` at a corner."""
    out = np.zeros([n - 1 for n in samples.shape], bool)
    for corner in _corners(samples):
        out |= corner
    return out


def _marked(samples: Int[Array, "cells k 3"], shape: tuple[int, ...]) -> Bool[Array, "x y z"]:
    """True at ``samples``."""
    mask = np.zeros(shape, bool)
    mask[tuple(samples.T)] = True
    return mask


def _upsampled(values: Float[Array, "x y z"]) -> Float[Array, "a b c"]:
    """Samples at half the spacing: means, which lie on the side of a level where all they are made of lie."""
    for axis in range(3):
        finer = np.empty([2 * n - 1 if a == axis else n for a, n in enumerate(values.shape)], values.dtype)
        old, new = np.moveaxis(values, axis, 0), np.moveaxis(finer, axis, 0)
        new[::2] = old
        new[1::2] = 0.5 * (old[1:] + old[:-1])
        values = finer
    return values


def _upsampled_mask(is_evaluated: Bool[Array, "x y z"]) -> Bool[Array, "a b c"]:
    """What is known at half the spacing: none of the new samples."""
    out = np.zeros([2 * n - 1 for n in is_evaluated.shape], bool)
    out[::2, ::2, ::2] = is_evaluated
    return out
