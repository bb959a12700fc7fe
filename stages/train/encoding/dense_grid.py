"""A dense trainable grid with features and their spatial tangents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DenseGrid(nn.Module):
    """Trilinear features of points in [-1, 1]³: ``resolution`` cells along an axis, ``n_features`` at each corner."""

    def __init__(self, resolution: int, n_features: int) -> None:
        super().__init__()
        self.resolution, self.width = resolution, n_features
        self.table = nn.Parameter(torch.empty((resolution + 1) ** 3, n_features).uniform_(-1e-4, 1e-4))

    def _corners(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2 2 2 width"], Float[Tensor, "n 3"]]:
        """Corner features by x, y, z side, and the fraction inside the cell."""
        scaled = (points.clamp(-1.0, 1.0) * 0.5 + 0.5) * self.resolution
        cell = scaled.floor().clamp(max=self.resolution - 1)
        base = cell.to(torch.int32)
        side = torch.arange(2, device=points.device, dtype=torch.int32)
        x = base[:, 0, None, None, None] + side[:, None, None]
        y = base[:, 1, None, None, None] + side[None, :, None]
        z = base[:, 2, None, None, None] + side[None, None, :]
        stride = self.resolution + 1
        return self.table[(x * stride + y) * stride + z], scaled - cell

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        value, fraction = self._corners(points)
        for axis in range(3):
            t = fraction[:, axis].view(-1, *[1] * (3 - axis))
            value = torch.lerp(value[:, 0], value[:, 1], t)
        return value

    def with_tangents(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "4 n width"]:
        """Row 0: features; rows 1..3: their derivatives by x, y, z (per unit of ``points``)."""
        corner, fraction = self._corners(points)
        rows = corner[None]
        for axis in range(3):
            t = fraction[:, axis].view(-1, *[1] * (3 - axis))
            near, far = rows[:, :, 0], rows[:, :, 1]
            rows = torch.cat([torch.lerp(near, far, t), (far - near)[:1]])
        return torch.cat([rows[:1], rows[1:] * (0.5 * self.resolution)])
