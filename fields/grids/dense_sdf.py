"""A dense SDF volume over a block: the SDF cache, which guides samples."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from quoin.fields.encoding.trilinear import CORNERS, AxisWeights, corner_weights, gradient_weights, weighted_sum


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
