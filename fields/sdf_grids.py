"""Grids of signed distances over a block: a dense one, the SDF cache that guides samples, and a sparse one.

The sparse grid is the initial SDF: coarse cells over the block, each used as it is, or with a brick of
CELLS_PER_COARSE³ fine cells near the surface. A look-up takes one step more than in a dense grid, and a fraction of the
memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from quoin.fields.device import mark_dynamic
from quoin.fields.encoding.trilinear import CORNERS, AxisWeights, corner_weights, gradient_weights, weighted_sum

CELLS_PER_COARSE = 4  # fine cells along a coarse one
SAMPLES_PER_BRICK_SIDE = CELLS_PER_COARSE + 1  # samples along a brick: neighbours have copies of those they share


class DenseSdf(nn.Module):
    """SDF on a regular grid [X, Y, Z] with the first sample at ``low`` and one ``spacing`` for all axes."""

    values: Tensor
    low: Tensor
    spacing: Tensor

    def __init__(self, values: Float[Tensor, "x y z"], low: Float[Tensor, "3"], spacing: float) -> None:
        super().__init__()
        self.register_buffer("values", values.contiguous())
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("spacing", torch.tensor(spacing, dtype=values.dtype, device=low.device), persistent=False)

    @classmethod
    def over_box(cls, half_extent: Float[Tensor, "3"], resolution: int, fill: float = 0.0) -> DenseSdf:
        """A volume of value ``fill`` over the box [-half, half], with ``resolution`` cells along the longest side."""
        spacing = 2.0 * float(half_extent.max()) / resolution
        shape = [int(torch.ceil(2.0 * h / spacing - 1e-4)) + 1 for h in half_extent]
        return cls(torch.full(shape, fill, device=half_extent.device, dtype=half_extent.dtype), -half_extent, spacing)

    def positions(self) -> Float[Tensor, "n 3"]:
        """Positions of all samples, in C order."""
        axes = [
            torch.arange(n, device=self.low.device, dtype=self.low.dtype) * self.spacing + self.low[axis]
            for axis, n in enumerate(self.values.shape)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)

    def _corners(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[list[Tensor], tuple[AxisWeights, AxisWeights, AxisWeights]]:
        """Values at the corners of each point's cell, and the linear weights of near and far corners by axis."""
        shape, scaled = self.values.shape, (points - self.low) / self.spacing
        base, weight = [], []
        for axis, size in enumerate(shape):
            s = scaled[:, axis].clamp(0.0, size - 1.0)
            cell = s.floor().clamp(max=size - 2.0)
            base.append(cell.to(torch.int32))
            weight.append((1.0 - (s - cell), s - cell))
        flat = (base[0] * shape[1] + base[1]) * shape[2] + base[2]
        values = self.values.view(-1)
        corner = [values[flat + ((i * shape[1] + j) * shape[2] + k)] for i, j, k in CORNERS]
        return corner, (weight[0], weight[1], weight[2])

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Trilinear values; points outside are clamped to the border."""
        corner, weight = self._corners(points)
        return weighted_sum(corner, corner_weights(*weight))

    def with_gradient(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Trilinear values and their gradients."""
        corner, (x, y, z) = self._corners(points)
        step = (torch.full_like(x[0], -1.0), torch.ones_like(x[0]))
        gradient = (
            torch.stack([weighted_sum(corner, weight) for weight in gradient_weights(x, y, z, step)], dim=1)
            / self.spacing
        )
        return weighted_sum(corner, corner_weights(x, y, z)), gradient

    @torch.no_grad()
    def update_nearest(
        self,
        points: Float[Tensor, "n 3"],
        sdf: Float[Tensor, "n"],
        gradient: Float[Tensor, "n 3"],
        is_counted: Bool[Tensor, "n"],
    ) -> None:
        """Set the sample nearest to each point to sdf + ∇f·(sample − point), from values of a training step.

        This keeps the volume fresh near the surface without evaluating the network. Of several points at one sample the
        last one counts, on a CPU. Shapes are fixed, so that a GPU need not be waited for: points that do not count, lie
        outside or are not finite are written to the first sample, with the value it has.
        """
        shape, scaled = self.values.shape, (points - self.low) / self.spacing
        nearest = scaled.round()
        limit = torch.tensor([size - 1 for size in shape], device=points.device)
        moved = sdf + (gradient * (nearest - scaled)).sum(dim=1) * self.spacing
        good = is_counted & ((nearest >= 0) & (nearest <= limit)).all(dim=1) & moved.isfinite()
        cell = torch.where(good[:, None], nearest, 0.0).long()
        flat, values = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2], self.values.view(-1)
        values.scatter_(0, flat, torch.where(good, moved, values[0]))

    @torch.no_grad()
    def refresh(self, sdf, rows: slice | Tensor | None = None, chunk: int = 1 << 18) -> None:
        """Set all samples, or those of flat indices ``rows``, to ``sdf(points [n, 3]) -> [n]``."""
        positions = self.positions() if rows is None else self.positions()[rows]
        values = torch.cat([sdf(part) for part in positions.split(chunk)])
        self.values.view(-1)[slice(None) if rows is None else rows] = values


class SparseSdf(nn.Module):
    """Samples of an SDF: those of the coarse grid in C order, then those of the bricks."""

    values: Tensor  # [all samples]
    brick_start: Tensor  # int32 [coarse cells]: index into ``values`` of the cell's brick, -1 without one
    shape: Tensor  # int32 [3]: samples of the coarse grid by axis
    low: Tensor  # [3]: position of the first sample
    coarse_spacing: Tensor  # distance between coarse samples, the same along all axes

    def __init__(self, values: Float[Tensor, "x y z"], low: Float[Tensor, "3"], coarse_spacing: float) -> None:
        super().__init__()
        cells = (values.shape[0] - 1) * (values.shape[1] - 1) * (values.shape[2] - 1)
        self.register_buffer("values", values.contiguous().view(-1))
        self.register_buffer("brick_start", torch.full((cells,), -1, dtype=torch.int32, device=low.device))
        shape = torch.tensor(values.shape, dtype=torch.int32, device=low.device)
        self.register_buffer("shape", shape, persistent=False)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer(
            "coarse_spacing", torch.tensor(coarse_spacing, dtype=values.dtype, device=low.device), persistent=False
        )

    @classmethod
    def over_box(cls, half_extent: Float[Tensor, "3"], resolution: int) -> SparseSdf:
        """Zeros over the box [-half, half], ``resolution`` coarse cells along the longest side, and no bricks."""
        grid = DenseSdf.over_box(half_extent, resolution)
        return cls(grid.values, grid.low, float(grid.spacing))

    @property
    def fine_spacing(self) -> Tensor:
        """Distance between samples of a brick."""
        return self.coarse_spacing / CELLS_PER_COARSE

    def mark_dynamic(self) -> None:
        """Allow the number of samples to differ between blocks without compiling again."""
        mark_dynamic(self.values, 0)
        mark_dynamic(self.brick_start, 0)

    def refine(self, cells: Bool[Tensor, "cells"]) -> None:
        """Give these coarse cells (C order), and no others, a brick; its samples get the values that were there."""
        number = torch.cumsum(cells, 0, dtype=torch.int32) - 1
        bricks = self(self._brick_positions(torch.nonzero(cells)[:, 0]))
        n_coarse = int(self.shape.prod())
        self.values = torch.cat([self.values[:n_coarse], bricks])
        self.brick_start = torch.where(cells, n_coarse + number * SAMPLES_PER_BRICK_SIDE**3, -1).int()

    def positions(self) -> Float[Tensor, "n 3"]:
        """Positions of all samples, in their order."""
        axes = (torch.arange(n, device=self.low.device) for n in self.shape.tolist())
        grid = torch.cartesian_prod(*axes) * self.coarse_spacing + self.low
        return torch.cat([grid, self._brick_positions(torch.nonzero(self.brick_start >= 0)[:, 0])])

    def canonical_indices(self) -> Int[Tensor, "n"]:
        """Canonical index of each sample: of the copies on faces that bricks share, that of the following brick."""
        cells = self._cell(torch.nonzero(self.brick_start >= 0)[:, 0])
        side = torch.arange(SAMPLES_PER_BRICK_SIDE, device=self.low.device)
        inner = torch.cartesian_prod(side, side, side)
        n_coarse, last = int(self.shape.prod()), self.shape - 2
        canonical_indices = torch.arange(len(self.values), device=self.low.device)
        of_brick = canonical_indices[n_coarse:].view(-1, SAMPLES_PER_BRICK_SIDE**3)
        a, b, c = (self.shape - 1).tolist()
        for onwards in torch.cartesian_prod(*[torch.arange(2, device=self.low.device)] * 3)[1:]:
            neighbor = cells + onwards  # the far faces of a brick begin the next
            x, y, z = torch.minimum(neighbor, last).unbind(1)
            has_brick = (neighbor <= last).all(dim=1) & (self.brick_start.view(a, b, c)[x, y, z] >= 0)
            shared = torch.nonzero(((inner == CELLS_PER_COARSE) == onwards.bool()).all(dim=1))[:, 0]
            i, j, k = (inner[shared] * (1 - onwards)).unbind(1)
            copies = (
                self.brick_start.view(a, b, c)[x, y, z, None]
                + (i * SAMPLES_PER_BRICK_SIDE + j) * SAMPLES_PER_BRICK_SIDE
                + k
            )
            of_brick[:, shared] = torch.where(has_brick[:, None], copies, of_brick[:, shared])
        return canonical_indices

    def _cell(self, number: Tensor) -> Int[Tensor, "n 3"]:
        """Coarse cells [n, 3] of their indices in C order."""
        _, b, c = (self.shape - 1).unbind()
        return torch.stack([number // (b * c), number // c % b, number % c], dim=1)

    def _brick_positions(self, cells: Tensor) -> Float[Tensor, "n 3"]:
        side = torch.arange(SAMPLES_PER_BRICK_SIDE, device=self.low.device, dtype=self.low.dtype) / CELLS_PER_COARSE
        inner = torch.cartesian_prod(side, side, side)
        return ((self._cell(cells)[:, None] + inner) * self.coarse_spacing + self.low).reshape(-1, 3)

    def _corners(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[list[Tensor], tuple[AxisWeights, AxisWeights, AxisWeights], Tensor]:
        """Values at the corners of each point's finest cell, weights of near and far corners by axis, its size."""
        scaled = (points - self.low) / self.coarse_spacing
        last_sample = (self.shape - 1).to(points.dtype)
        cell, place = [], []
        for axis in range(3):
            s = torch.minimum(scaled[:, axis].clamp(min=0.0), last_sample[axis])
            below = torch.minimum(s.floor(), last_sample[axis] - 1.0)
            cell.append(below.to(torch.int32))
            place.append(s - below)
        _, b, c = self.shape.unbind()
        brick = self.brick_start[(cell[0] * (b - 1) + cell[1]) * (c - 1) + cell[2]]
        in_brick = brick >= 0
        inner = [(p * CELLS_PER_COARSE).floor().clamp(max=CELLS_PER_COARSE - 1.0) for p in place]
        x, y, z = (i.to(torch.int32) for i in inner)
        start = torch.where(
            in_brick,
            brick + (x * SAMPLES_PER_BRICK_SIDE + y) * SAMPLES_PER_BRICK_SIDE + z,
            (cell[0] * b + cell[1]) * c + cell[2],
        )
        by_x, by_y = (
            torch.where(in_brick, SAMPLES_PER_BRICK_SIDE * SAMPLES_PER_BRICK_SIDE, b * c),
            torch.where(in_brick, SAMPLES_PER_BRICK_SIDE, c),
        )
        corner = [self.values[start + (i * by_x + j * by_y + k)] for i, j, k in CORNERS]
        share = [torch.where(in_brick, p * CELLS_PER_COARSE - i, p) for p, i in zip(place, inner, strict=True)]
        near_x, near_y, near_z = ((1.0 - t, t) for t in share)
        return corner, (near_x, near_y, near_z), torch.where(in_brick, self.fine_spacing, self.coarse_spacing)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Trilinear values; points outside are clamped to the border."""
        corner, weight, _ = self._corners(points)
        return weighted_sum(corner, corner_weights(*weight))

    def with_gradient(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Trilinear values and their gradients."""
        corner, (x, y, z), size = self._corners(points)
        step = (torch.full_like(x[0], -1.0), torch.ones_like(x[0]))
        slopes = [weighted_sum(corner, weight) for weight in gradient_weights(x, y, z, step)]
        return weighted_sum(corner, corner_weights(x, y, z)), torch.stack(slopes, dim=1) / size[:, None]


def map_chunks(function: Callable[[Tensor], Tensor], points: Float[Tensor, "n 3"], size: int) -> Tensor:
    """``function`` of all points [n, ...], evaluated ``size`` at a time; the last chunk is padded with zeros."""
    parts = torch.nn.functional.pad(points, (0, 0, 0, -len(points) % size)).split(size)
    return torch.cat([function(part) for part in parts])[: len(points)]
