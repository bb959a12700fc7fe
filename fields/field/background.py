"""Background: density and color of everything outside the block, in contracted space."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from quoin.fields.conditioning import Conditioning
from quoin.fields.encoding.hash_grid import HashGrid
from quoin.pipeline.core.config import StageConfig


class BackgroundConfig(StageConfig):
    """The background of a block, in contracted space."""

    samples: int = Field(6, ge=2)
    """Per ray."""


class BackgroundField(nn.Module):
    """Density and color of everything outside the block, in contracted space (mip-NeRF 360 eq. 10, max norm)."""

    def __init__(self, n_appearance: int, log2_table: int = 17, hidden: int = 32) -> None:
        super().__init__()
        self.encoding = HashGrid(6, 16, 256, log2_table)
        self.trunk = nn.Sequential(nn.Linear(self.encoding.width + 3, hidden), nn.ReLU(), nn.Linear(hidden, 16))
        self.color = nn.Sequential(nn.Linear(16 + 3 + n_appearance, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(
        self, points: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"], condition: Conditioning
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density per unit length of contracted space, and color."""
        contracted = contract(points)
        out = self.trunk(torch.cat([contracted, self.encoding(contracted)], dim=1))
        color = torch.sigmoid(self.color(torch.cat([out, directions, condition.appearance], dim=1)))
        return functional.softplus(out[:, 0] - 1.0), color


def contract(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Points of all space in [-1, 1]³: the block's cube fills the inner half, infinity is the boundary."""
    norm = points.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    return 0.5 * torch.where(norm <= 1.0, points, (2.0 - 1.0 / norm) * points / norm)
