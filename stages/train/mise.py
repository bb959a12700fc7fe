"""Multiresolution IsoSurface Extraction (Occupancy Networks, Mescheder et al. 2019, sec. 3.3): asked near it only."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray
CORNERS = np.array(list(product((0, 1), repeat=3)))
HALVES = np.array(list(product((0, 1, 2), repeat=3)))


def mise(
    value: Callable[[Float[Array, "n 3"]], Float[Array, "n"]], resolution: int, coarse: int = 32, level: float = 0.0
) -> tuple[Float[Array, "x y z"], int]:
    """Samples [R+1, R+1, R+1] of ``value`` for marching cubes at ``level``, and how many of them were asked for.

    ``value`` takes sample indices of the final lattice, 0..R along each axis, many at once and none twice. A grid of
    ``coarse`` cells is asked in full and halved until it has R = ``resolution``, ``coarse`` times a power of two. Cells
    with corners on both sides of ``level`` are asked in full when they are halved, all else is interpolated; where a
    sample turns out to lie on the other side than its surroundings were thought to, they are asked too.

    So every cell of the result that holds surface has eight true corners, and marching cubes makes of it what it makes
    of the whole lattice, but for pieces of surface that slip between the samples of the coarse grid altogether. Eager.
    """
    if resolution % coarse or (resolution // coarse).bit_count() != 1:
        raise ValueError(f"resolution {resolution} is not {coarse} times a power of two")
    n = coarse
    known = np.ones((n + 1,) * 3, bool)
    values = value(np.argwhere(known) * (resolution / n)).reshape(known.shape)
    n_asked = known.size
    cells = np.argwhere(_straddles(np.stack(_corners(values), axis=-1), level))
    while n < resolution:
        n *= 2
        values, known = _halved(values), _spread(known)
        active = np.zeros((n,) * 3, bool)
        wanted = _marked(2 * cells[:, None] + HALVES, known.shape) & ~known
        while wanted.any():
            asked = np.argwhere(wanted)
            values[wanted] = value(asked * (resolution / n))
            known |= wanted
            n_asked += len(asked)
            around = np.argwhere(np.logical_or.reduce(_corners(wanted)))
            corners = around[:, None] + CORNERS
            mixed = _straddles(values[tuple(corners.T)].T, level)
            active[tuple(around[mixed].T)] = True
            wanted = _marked(corners[mixed], known.shape) & ~known
        cells = np.argwhere(active)
    return values, n_asked


def _straddles(corners: Float[Array, "*cells 8"], level: float) -> Bool[Array, "*cells"]:
    """Whether the corners of cells lie on both sides of ``level``; on it counts as either."""
    return (corners.min(axis=-1) <= level) & (corners.max(axis=-1) >= level)


def _corners(samples: Array) -> list[Array]:
    """The eight corners of all cells, each [x-1, y-1, z-1], in the order of CORNERS."""
    return [
        samples[tuple(slice(c, n - 1 + c) for c, n in zip(corner, samples.shape, strict=True))] for corner in CORNERS
    ]


def _marked(samples: Int[Array, "cells k 3"], shape: tuple[int, ...]) -> Bool[Array, "x y z"]:
    """True at ``samples``."""
    mask = np.zeros(shape, bool)
    mask[tuple(samples.T)] = True
    return mask


def _halved(values: Float[Array, "x y z"]) -> Float[Array, "a b c"]:
    """Samples at half the spacing: means, which lie on the side of a level where all they are made of lie."""
    for axis in range(3):
        finer = np.empty([2 * n - 1 if a == axis else n for a, n in enumerate(values.shape)], values.dtype)
        old, new = np.moveaxis(values, axis, 0), np.moveaxis(finer, axis, 0)
        new[::2] = old
        new[1::2] = 0.5 * (old[1:] + old[:-1])
        values = finer
    return values


def _spread(known: Bool[Array, "x y z"]) -> Bool[Array, "a b c"]:
    """What is known at half the spacing: none of the new samples."""
    out = np.zeros([2 * n - 1 for n in known.shape], bool)
    out[::2, ::2, ::2] = known
    return out
