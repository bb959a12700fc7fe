"""A dense trainable grid."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.train.encoding.trilinear import CORNERS, Pair, PullBack, corner_weights


class DenseGrid(nn.Module):
    """Trilinear features of points in [-1, 1]³: ``resolution`` cells along an axis, ``n_features`` at each corner."""

    def __init__(self, resolution: int, n_features: int) -> None:
        super().__init__()
        self.resolution, self.width = resolution, n_features
        self.table = nn.Parameter(torch.empty((resolution + 1) ** 3, n_features).uniform_(-1e-4, 1e-4))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        return self.linearised(points)[0]

    def linearised(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features at points, and what turns ∂f/∂features [n, width] into ∂f/∂points [n, 3]; the table is read once."""
        corner, (x, y, z) = self._corners(points)
        per_cell = torch.full_like(x[0], 0.5 * self.resolution)
        step = (-per_cell, per_cell)

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            adds = (corner * slope).sum(dim=2)  # to f, by each corner
            by_axis = (corner_weights(step, y, z), corner_weights(x, step, z), corner_weights(x, y, step))
            return torch.stack([(adds * weight).sum(dim=0) for weight in by_axis], dim=1)

        return (corner * corner_weights(x, y, z)[..., None]).sum(dim=0), pull_back

    def _corners(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "8 n width"], tuple[Pair, Pair, Pair]]:
        """Features of the corners of each point's cell, and the weights of near and far corners by axis."""
        scaled = (points.clamp(-1.0, 1.0) * 0.5 + 0.5) * self.resolution
        cell = scaled.floor().clamp(max=self.resolution - 1)
        x, y, z = cell.to(torch.int32).unbind(1)
        stride = self.resolution + 1
        index = torch.stack([((x + i) * stride + y + j) * stride + z + k for i, j, k in CORNERS])
        tx, ty, tz = (scaled - cell).unbind(1)
        return self.table[index], ((1.0 - tx, tx), (1.0 - ty, ty), (1.0 - tz, tz))
