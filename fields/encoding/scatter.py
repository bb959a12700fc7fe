"""Adds many rows into a table: the backward pass of a look-up."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quoin.fields.compile import compile_function


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
