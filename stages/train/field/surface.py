"""The surface: a signed distance with its gradient in one forward pass.

It lives in the block's own frame, the cube [-1, 1]³ (``block_from_world`` maps into it); distances are in that unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.train.encoding.hash_grid import HashGrid
from stages.train.field.mlp import ScalarMLP
from stages.train.volume import Volume


class SurfaceSample(NamedTuple):
    """Field values at points: sdf [n], its gradient [n, 3], a feature for the colour head [n, f]."""

    sdf: Tensor
    gradient: Tensor
    feature: Tensor


class SurfaceField(nn.Module):
    """sdf(x) = base(x) + network of (x, encoding(x))."""

    def __init__(self, encoding: HashGrid, base: Volume, hidden: int = 64, n_feature: int = 15) -> None:
        super().__init__()
        self.encoding, self.base = encoding, base
        self.network = ScalarMLP(3 + encoding.width, hidden, 1)
        self.feature_head = nn.Linear(hidden, n_feature)

    def forward(self, points: Float[Tensor, "n 3"]) -> SurfaceSample:
        """Value, gradient and feature in one pass."""
        features, pull_back = self.encoding.linearised(points)
        value, slope, hidden = self.network.linearised(torch.cat([points, features], dim=1))
        base, base_gradient = self.base.with_gradient(points)
        gradient = slope[:, :3] + pull_back(slope[:, 3:]) + base_gradient
        return SurfaceSample(value + base, gradient, self.feature_head(hidden))

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The value alone."""
        return self.network(torch.cat([points, self.encoding(points)], dim=1)) + self.base(points)
