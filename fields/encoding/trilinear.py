"""Trilinear interpolation of tables: values and derivatives from one reading, in a form that compiles to fast code.

Corners are the first axis, and are added one by one: compilers handle a reduction over eight badly. (TorchInductor 2.13
on CPU turns a sum over corners, with few features last, into a parallel loop inside a serial one.)
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quoin.fields.encoding.scatter import add_rows

CORNERS = tuple(itertools.product((0, 1), repeat=3))  # z fastest
AxisWeights = tuple[Tensor, Tensor]  # weights of the near and the far corner along an axis


def corner_weights(x: AxisWeights, y: AxisWeights, z: AxisWeights) -> list[Tensor]:
    """Weights of the eight corners."""
    return [x[i] * y[j] * z[k] for i, j, k in CORNERS]


def gradient_weights(
    x: AxisWeights, y: AxisWeights, z: AxisWeights, step: AxisWeights
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Derivatives of ``corner_weights`` by x, y and z; ``step`` is the derivative of a pair, (−1, 1) in cells."""
    return corner_weights(step, y, z), corner_weights(x, step, z), corner_weights(x, y, step)


def weighted_sum(corner: list[Tensor], weight: list[Tensor]) -> Tensor:
    """Σ over the corners."""
    total = corner[0] * weight[0]
    for c, w in zip(corner[1:], weight[1:], strict=True):
        total = total + c * w
    return total


class Interpolation(torch.autograd.Function):
    """Features at points in cells of a table, and their derivatives by the three axes, four tensors [levels, n, f].

    Args:
        table: features of all entries.
        index: entries of the cells' corners.
        fraction: positions inside the cells, 0..1 by axis.
        weight: a factor per level.
        cells: number of cells per unit of length.

    The backward pass does not read the table, and adds to its gradient once.
    """

    @staticmethod
    def forward(
        ctx,
        table: Float[Tensor, "entries f"],
        index: Int[Tensor, "8 levels n"],
        fraction: Float[Tensor, "3 levels n"],
        weight: Float[Tensor, "levels 1"],
        cells: Float[Tensor, "levels 1"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(index, fraction, weight, cells)
        ctx.n_entries = len(table)
        corner = [table[index[c]] for c in range(8)]
        value, dx, dy, dz = (weighted_sum(corner, w) for w in _all_weights(fraction, weight, cells))
        return value, dx, dy, dz

    @staticmethod
    def backward(ctx, *grads):
        index, fraction, weight, cells = ctx.saved_tensors
        by_corner = zip(*_all_weights(fraction, weight, cells), strict=True)
        adds = torch.stack([weighted_sum(list(grads), list(weights)) for weights in by_corner])
        return add_rows(index, adds, ctx.n_entries), None, None, None, None


def _all_weights(fraction: Tensor, weight: Tensor, cells: Tensor) -> tuple[list[Tensor], ...]:
    """Weights [levels, n, 1] of the corners for the value and for its derivatives by x, y, z."""
    x, y, z = (((1.0 - t)[..., None], t[..., None]) for t in fraction.unbind(0))
    far = (weight * cells)[..., None]
    step = (-far, far)
    level = weight[..., None]
    x_level = (x[0] * level, x[1] * level)
    return corner_weights(x_level, y, z), *gradient_weights(x, y, z, step)
