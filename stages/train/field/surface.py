"""The surface: a signed distance with its gradient in one forward pass.

It lives in the block's own frame, the cube [-1, 1]³ (``block_from_world`` maps into it); distances are in that unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.train.encoding.dense_grid import DenseGrid
from stages.train.encoding.fourier import RandomFourier
from stages.train.encoding.frequency import Frequency
from stages.train.encoding.hash_grid import HashGrid
from stages.train.field.mlp import ScalarMLP
from stages.train.volume import Volume

Encoding = HashGrid | Frequency | RandomFourier | DenseGrid


class SurfaceSample(NamedTuple):
    """Field values at points: sdf [n], its gradient [n, 3], a feature for the colour head [n, f]."""

    sdf: Tensor
    gradient: Tensor
    feature: Tensor


class SurfaceField(nn.Module):
    """sdf(x) = base(x) + network of (x, encoding(x)); without a base the network starts as a sphere."""

    def __init__(self, encoding: Encoding, network: ScalarMLP, base: Volume | None, n_feature: int) -> None:
        super().__init__()
        self.encoding, self.network, self.base = encoding, network, base
        self.feature_head = nn.Linear(network.last.in_features, n_feature)

    def forward(self, points: Float[Tensor, "n 3"]) -> SurfaceSample:
        """Value, gradient and feature in one pass."""
        features, pull_back = self.encoding.linearised(points)
        value, slope, hidden = self.network.linearised(torch.cat([points, features], dim=1))
        gradient = slope[:, :3] + pull_back(slope[:, 3:])
        if self.base is not None:
            base, base_gradient = self.base.with_gradient(points)
            value, gradient = value + base, gradient + base_gradient
        return SurfaceSample(value, gradient, self.feature_head(hidden))

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The value alone."""
        value = self.network(torch.cat([points, self.encoding(points)], dim=1))
        return value if self.base is None else value + self.base(points)
