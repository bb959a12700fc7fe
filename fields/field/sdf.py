"""The surface: a signed distance with its gradient in one forward pass.

It lives in the block's own frame, the cube [-1, 1]³ (``block_from_world`` maps into it); distances are in that unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.encoding.dense_grid import DenseGrid
from quoin.fields.encoding.fourier import RandomFourierEncoding
from quoin.fields.encoding.frequency import FrequencyEncoding
from quoin.fields.encoding.hash_grid import HashGrid
from quoin.fields.field.differences import central_differences
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.grids.sparse_sdf import SparseSdf

Encoding = HashGrid | FrequencyEncoding | RandomFourierEncoding | DenseGrid


class FieldOutput(NamedTuple):
    """Field values at points: sdf [n], its gradient [n, 3], a feature for the colour head [n, f]; curvature [n]."""

    sdf: Tensor
    gradient: Tensor
    feature: Tensor
    curvature: Tensor | None = None  # how far the slope changes over a cell; only where it is one of differences


class SurfaceField(nn.Module):
    """sdf(x) = base(x) + network of (x, encoding(x)); without a base the network starts as a sphere.

    ``differences``: the gradient is one of central differences over a cell of the encoding (Neuralangelo sec. 3.1).
    """

    def __init__(
        self,
        encoding: Encoding,
        network: ScalarMLP,
        base: SparseSdf | None,
        n_feature: int,
        *,
        use_numerical_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.encoding, self.network, self.base, self.use_numerical_gradient = (
            encoding,
            network,
            base,
            use_numerical_gradient,
        )
        self.feature_head = nn.Linear(network.last.in_features, n_feature)

    def forward(self, points: Float[Tensor, "n 3"]) -> FieldOutput:
        """Value, gradient and feature in one pass; with ``differences`` in seven, and curvature too."""
        if self.use_numerical_gradient:
            hidden = self.network.hidden(self._inputs(points))
            value = self._with_base(self.network.last(hidden)[:, 0], points)
            cell = self.encoding.cell()
            gradient, laplacian = central_differences(self.sdf, points, value, cell)
            return FieldOutput(value, gradient, self.feature_head(hidden), laplacian * cell)
        features, pull_back = self.encoding.linearize(points)
        value, slope, hidden = self.network.linearize(torch.cat([points, features], dim=1))
        gradient = slope[:, :3] + pull_back(slope[:, 3:])
        if self.base is not None:
            base, base_gradient = self.base.with_gradient(points)
            value, gradient = value + base, gradient + base_gradient
        return FieldOutput(value, gradient, self.feature_head(hidden))

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The value alone."""
        return self._with_base(self.network(self._inputs(points)), points)

    def _inputs(self, points: Tensor) -> Tensor:
        return torch.cat([points, self.encoding(points)], dim=1)

    def _with_base(self, value: Tensor, points: Tensor) -> Tensor:
        return value if self.base is None else value + self.base(points)
