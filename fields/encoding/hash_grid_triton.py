"""The hash grid on CUDA: a Triton kernel that reads it, one that adds to it, and the operations PyTorch sees.

The same numbers as ``trilinear.Interpolation`` gives in ``hash_grid.py``, without its tensors of indices and weights:
the kernels work out the corners of a cell where they need them. One program takes ``BLOCK`` points at one level; those
of a level follow one another, so that the table in use stays in the L2 cache.

Slopes by position are kept from the one reading, and not read for anew: with two features they cost a point and level
48 bytes to write and fetch, its 8 corners at least 32 bytes each, scattered over the table. So the backward pass reads
no table, and adds to it once.

A pointer given to a helper counts as written to when PyTorch looks at a kernel, and is copied then: helpers get values.
"""

import math
from typing import no_type_check

import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

BLOCK = 128  # points of a program, one a thread
PRIME_Y, PRIME_Z = tl.constexpr(-1640531535), tl.constexpr(805459861)  # PRIMES of hash_grid.py; that of x is 1


def interpolate_hash_grid(
    table: Tensor, points: Tensor, resolutions: Tensor, level_weight: Tensor, *, slopes: bool
) -> tuple[Tensor, ...]:
    """Features [levels, n, f] at ``points`` [n, 3]; with ``slopes`` their derivatives by x, y and z too.

    ``table`` [levels · entries, f] float32, entries a power of two; ``resolutions`` [levels] int32, cells along an
    axis; ``level_weight`` [levels]: a level of weight 0 gives zeros, and is neither read nor trained. Differentiable by
    the table, once.
    """
    planes = 4 if slopes else 1
    return _read(table.contiguous(), points.contiguous(), resolutions, level_weight, planes).unbind(0)


@triton_op("quoin::read_hash_grid", mutates_args={})
def _read(table: Tensor, points: Tensor, resolutions: Tensor, level_weight: Tensor, planes: int) -> Tensor:
    """[planes, levels, n, f]: features, and for 4 planes their derivatives by x, y and z."""
    (n, _), levels, (entries, features) = points.shape, len(resolutions), table.shape
    out = points.new_empty(planes, levels, n, features)
    width = math.gcd(features, 4)  # what a thread reads at once
    wrap_triton(_read_kernel)[triton.cdiv(n, BLOCK), levels, features // width](
        table, points, resolutions, level_weight, out, n, entries // levels, features, width, planes, BLOCK
    )
    return out


@triton_op("quoin::add_to_hash_grid", mutates_args={})
def _add(grad: Tensor, points: Tensor, resolutions: Tensor, level_weight: Tensor, entries: int) -> Tensor:
    """∂L/∂table [entries, f] from ``grad`` [planes, levels, n, f], that by what ``_read`` gave."""
    planes, levels, n, features = grad.shape
    out = grad.new_zeros(entries, features)
    width = math.gcd(features, 4)
    wrap_triton(_add_kernel)[triton.cdiv(n, BLOCK), levels, features // width](
        out, points, resolutions, level_weight, grad, n, entries // levels, features, width, planes, BLOCK
    )
    return out


def _save(ctx, inputs, output) -> None:
    table, *rest, _ = inputs
    ctx.save_for_backward(*rest)
    ctx.entries = len(table)


def _backward(ctx, grad):
    return _add(grad.contiguous(), *ctx.saved_tensors, ctx.entries), None, None, None, None


_read.register_autograd(_backward, setup_context=_save)


@triton.jit
@no_type_check
def _read_kernel(
    table,
    points,
    resolutions,
    level_weight,
    out,
    n,
    size,
    FEATURES: tl.constexpr,
    WIDTH: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level, row = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    feature = (tl.program_id(2) * WIDTH + tl.arange(0, WIDTH))[None, :]
    weight, resolution = tl.load(level_weight + level), tl.load(resolutions + level)
    inside, active = row < n, row < tl.where(weight != 0.0, n, 0)
    x, along_x = _cell(tl.load(points + row * 3, mask=active, other=0.0), resolution)
    y, along_y = _cell(tl.load(points + row * 3 + 1, mask=active, other=0.0), resolution)
    z, along_z = _cell(tl.load(points + row * 3 + 2, mask=active, other=0.0), resolution)
    entries = table + level.to(tl.int64) * size * FEATURES
    value, by_x, by_y, by_z = 0.0, 0.0, 0.0, 0.0
    for number in tl.static_range(8):
        index, w, w_x, w_y, w_z = _corner(number, (x, y, z), (along_x, along_y, along_z), weight, resolution, size)
        corner_value = tl.load(entries + index[:, None] * FEATURES + feature, mask=active[:, None], other=0.0)
        value += w[:, None] * corner_value
        if PLANES == 4:
            by_x += w_x[:, None] * corner_value
            by_y += w_y[:, None] * corner_value
            by_z += w_z[:, None] * corner_value
    at = out + level.to(tl.int64) * n * FEATURES + row[:, None] * FEATURES + feature
    plane = tl.num_programs(1).to(tl.int64) * n * FEATURES
    tl.store(at, value, mask=inside[:, None])
    if PLANES == 4:
        tl.store(at + plane, by_x, mask=inside[:, None])
        tl.store(at + 2 * plane, by_y, mask=inside[:, None])
        tl.store(at + 3 * plane, by_z, mask=inside[:, None])


@triton.jit
@no_type_check
def _add_kernel(
    table,
    points,
    resolutions,
    level_weight,
    grad,
    n,
    size,
    FEATURES: tl.constexpr,
    WIDTH: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level, row = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    feature = (tl.program_id(2) * WIDTH + tl.arange(0, WIDTH))[None, :]
    weight, resolution = tl.load(level_weight + level), tl.load(resolutions + level)
    active = row < tl.where(weight != 0.0, n, 0)
    x, along_x = _cell(tl.load(points + row * 3, mask=active, other=0.0), resolution)
    y, along_y = _cell(tl.load(points + row * 3 + 1, mask=active, other=0.0), resolution)
    z, along_z = _cell(tl.load(points + row * 3 + 2, mask=active, other=0.0), resolution)
    entries = table + level.to(tl.int64) * size * FEATURES
    at = grad + level.to(tl.int64) * n * FEATURES + row[:, None] * FEATURES + feature
    plane = tl.num_programs(1).to(tl.int64) * n * FEATURES
    value = tl.load(at, mask=active[:, None], other=0.0)
    if PLANES == 4:
        by_x = tl.load(at + plane, mask=active[:, None], other=0.0)
        by_y = tl.load(at + 2 * plane, mask=active[:, None], other=0.0)
        by_z = tl.load(at + 3 * plane, mask=active[:, None], other=0.0)
    for number in tl.static_range(8):
        index, w, w_x, w_y, w_z = _corner(number, (x, y, z), (along_x, along_y, along_z), weight, resolution, size)
        more = w[:, None] * value
        if PLANES == 4:
            more += w_x[:, None] * by_x + w_y[:, None] * by_y + w_z[:, None] * by_z
        tl.atomic_add(entries + index[:, None] * FEATURES + feature, more, mask=active[:, None], sem="relaxed")


@triton.jit
@no_type_check
def _cell(coordinate, resolution):
    """The cells of coordinates in [-1, 1] along an axis, and their places in them, 0..1; what is no number is -1."""
    scaled = (tl.where(coordinate > -1.0, tl.minimum(coordinate, 1.0), -1.0) * 0.5 + 0.5) * resolution
    cell = tl.minimum(tl.floor(scaled), resolution - 1.0)
    return cell.to(tl.int32), scaled - cell


@triton.jit
@no_type_check
def _corner(number: tl.constexpr, cell, place, weight, resolution, size):
    """The row of a corner in its level's table of ``size`` rows, and its weights for the value and its derivatives.

    The row is the corner's number where the level's corners have all room, else its hash.
    """
    i: tl.constexpr = number // 4
    j: tl.constexpr = number // 2 % 2
    k: tl.constexpr = number % 2
    x, y, z = cell[0] + i, cell[1] + j, cell[2] + k
    stride = resolution + 1
    dense = stride.to(tl.int64) * stride * stride <= size
    row = tl.where(dense, (x * stride + y) * stride + z, (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & (size - 1))
    w_x = place[0] if i else 1.0 - place[0]
    w_y = place[1] if j else 1.0 - place[1]
    w_z = place[2] if k else 1.0 - place[2]
    step = weight * resolution * 0.5
    by_x, by_y, by_z = (2 * i - 1) * step * w_y * w_z, (2 * j - 1) * step * w_x * w_z, (2 * k - 1) * step * w_x * w_y
    return row, weight * w_x * w_y * w_z, by_x, by_y, by_z
