"""Trilinear interpolation as a sum over the eight corners of a cell, corners first: what compiles to vector code."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

CORNERS = tuple(itertools.product((0, 1), repeat=3))  # z fastest
PullBack = Callable[[Tensor], Tensor]  # from a slope by features to one by points
Pair = tuple[Tensor, Tensor]  # weights of the near and the far corner along an axis


def corner_weights(x: Pair, y: Pair, z: Pair) -> Tensor:
    """Weights [8, ...] of the corners. A weight's derivative by one axis: (−1, 1) in that axis's stead, in cells."""
    return torch.stack([x[i] * y[j] * z[k] for i, j, k in CORNERS])
