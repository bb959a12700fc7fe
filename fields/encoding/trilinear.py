"""Trilinear interpolation of tables: values and derivatives from one reading, in a form that compiles to fast code.

Corners are the first axis, and are added one by one: compilers handle a reduction over eight badly. (TorchInductor 2.13
on CPU turns a sum over corners, with few features last, into a parallel loop inside a serial one.)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quoin.fields.device import compile_function

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


def add_rows(
    index: Int[Tensor, "*rows"], rows: Float[Tensor, "*rows f"], n_entries: int
) -> Float[Tensor, "{n_entries} f"]:
    """A table of zeros with ``rows`` added at ``index``.

    A GPU adds atomically, inside the surrounding graph. On a CPU atomic additions cost more than a second core gains
    (1.8 million rows of two numbers: 12 ms on one core without atomics, 18 ms on two with them, more where rows
    collide). There it is a custom operation on one core, which adds in the same order every time.
    """
    return _add_rows_on_cpu(index, rows, n_entries) if index.device.type == "cpu" else _add(index, rows, n_entries)


def _add(index: Tensor, rows: Tensor, n_entries: int) -> Tensor:
    rows = rows.reshape(-1, rows.shape[-1])
    return rows.new_zeros(n_entries, rows.shape[1]).scatter_add(0, index.reshape(-1, 1).long().expand_as(rows), rows)


@functools.cache
def _on_one_core() -> Callable[[Tensor, Tensor, int], Tensor]:
    return compile_function(_add, "cpu", single_threaded=True)


@torch.library.custom_op(
    "quoin::add_rows", mutates_args=(), schema="(Tensor index, Tensor rows, SymInt n_entries) -> Tensor"
)
def _add_rows_on_cpu(index: Tensor, rows: Tensor, n_entries: int) -> Tensor:
    return _on_one_core()(index, rows, n_entries)


@_add_rows_on_cpu.register_fake
def _(index: Tensor, rows: Tensor, n_entries: int) -> Tensor:
    return rows.new_empty(n_entries, rows.shape[-1])
