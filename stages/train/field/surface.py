"""The surface: a signed distance with its gradient in one forward pass.

It lives in the block's own frame, the cube [-1, 1]³ (``block_from_world`` maps into it); distances are in that unit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stages.train.encoding.hash_grid import HashGrid
from stages.train.volume import Volume

SOFTPLUS_BETA = 100.0  # NeuS models/fields.py


class SurfaceSample(NamedTuple):
    """Field values at points: sdf [n], its gradient [n, 3], a feature for the colour head [n, f]."""

    sdf: Tensor
    gradient: Tensor
    feature: Tensor


class SurfaceField(nn.Module):
    """sdf(x) = base(x) + one-hidden-layer MLP of (x, hash features)."""

    def __init__(self, encoding: HashGrid, base: Volume, hidden: int = 64, n_feature: int = 15) -> None:
        super().__init__()
        self.encoding, self.base = encoding, base
        width = 3 + encoding.width
        self.first = nn.Linear(width, hidden)
        self.sdf_head = nn.Linear(hidden, 1)
        self.feature_head = nn.Linear(hidden, n_feature)
        with torch.no_grad():
            self.first.weight.normal_(0.0, math.sqrt(2.0 / hidden))
            self.first.bias.zero_()
            self.sdf_head.weight.normal_(0.0, 1e-3)
            self.sdf_head.bias.zero_()

    def forward(self, points: Float[Tensor, "n 3"]) -> SurfaceSample:
        """Value, gradient and feature in one pass: the slopes go back through the network by hand (chain rule)."""
        features, pull_back = self.encoding.linearised(points)
        pre = self.first(torch.cat([points, features], dim=1))
        hidden = functional.softplus(pre, beta=SOFTPLUS_BETA)
        slope = (torch.sigmoid(SOFTPLUS_BETA * pre) * self.sdf_head.weight) @ self.first.weight
        base, base_gradient = self.base.with_gradient(points)
        gradient = slope[:, :3] + pull_back(slope[:, 3:]) + base_gradient
        return SurfaceSample(self.sdf_head(hidden)[:, 0] + base, gradient, self.feature_head(hidden))

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The value alone, about four times cheaper."""
        hidden = functional.softplus(self.first(torch.cat([points, self.encoding(points)], dim=1)), beta=SOFTPLUS_BETA)
        return self.sdf_head(hidden)[:, 0] + self.base(points)
