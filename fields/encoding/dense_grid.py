"""A dense trainable grid."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.encoding.encoding import Encoding, EncodingConfig, PullBack
from quoin.fields.encoding.trilinear import CORNERS, Interpolation


class GridEncodingConfig(EncodingConfig):
    """A dense trainable grid."""

    is_grid: ClassVar[bool] = True
    kind: Literal["grid"] = "grid"
    resolution: int = Field(128, ge=2, le=512)  # cells along the block
    features: int = Field(4, ge=1)

    def build(self) -> DenseGrid:
        return DenseGrid(self.resolution, self.features)


class DenseGrid(Encoding):
    """Trilinear features of points in [-1, 1]³: ``resolution`` cells along an axis, ``n_features`` at each corner."""

    def __init__(self, resolution: int, n_features: int) -> None:
        super().__init__()
        self.resolution, self.width = resolution, n_features
        self.table = nn.Parameter(torch.empty((resolution + 1) ** 3, n_features).uniform_(-1e-4, 1e-4))

    def cell(self) -> Float[Tensor, ""]:
        """Side of a cell, in the unit of the points."""
        return self.table.new_tensor(2.0 / self.resolution)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        return self.linearize(points)[0]

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features, and the function from ∂f/∂features [n, width] to ∂f/∂points [n, 3]; reads the table once."""
        scaled = (points.T[:, None].clamp(-1.0, 1.0) * 0.5 + 0.5) * self.resolution
        cell = scaled.floor().clamp(max=self.resolution - 1)
        x, y, z = cell.to(torch.int32).unbind(0)
        stride = self.resolution + 1
        index = torch.stack([((x + i) * stride + y + j) * stride + z + k for i, j, k in CORNERS])
        one = points.new_ones(1, 1)
        value, *slopes = Interpolation.apply(self.table, index, scaled - cell, one, 0.5 * self.resolution * one)

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            return torch.stack([(by_axis[0] * slope).sum(dim=1) for by_axis in slopes], dim=1)

        return value[0], pull_back
