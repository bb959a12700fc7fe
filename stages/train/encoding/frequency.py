"""Frequency encoding (NeRF's positional encoding) with its spatial tangents."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Frequency(nn.Module):
    """x, then sin(2ᵏx) and cos(2ᵏx) for k = 0, 1, …: 3 + 6 ``n_frequencies`` numbers, or without x 6 a frequency.

    Mildenhall et al. 2020, eq. 4, but without its π, as in the official code of NeRF and NeuS: over [-1, 1] the lowest
    wave is not periodic then.
    """

    frequencies: Tensor
    level_weight: Tensor

    def __init__(self, n_frequencies: int, include_input: bool = True) -> None:
        super().__init__()
        self.n_levels, self.include_input = n_frequencies, include_input
        self.register_buffer("frequencies", torch.exp2(torch.arange(n_frequencies).float()), persistent=False)
        self.register_buffer("level_weight", torch.ones(n_frequencies))

    @property
    def width(self) -> int:
        return 3 * self.include_input + 6 * self.n_levels

    def set_progress(self, active_levels: float) -> None:
        """Coarse to fine: wave k weighs (1 − cos(π clamp(``active_levels`` − k, 0, 1))) / 2 (Nerfies sec. 3.5)."""
        level = torch.arange(self.n_levels, device=self.level_weight.device)
        self.level_weight.copy_(0.5 - 0.5 * torch.cos(math.pi * (active_levels - level).clamp(0.0, 1.0)))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        angle = points[:, None] * self.frequencies[:, None]
        waves = torch.stack([angle.sin(), angle.cos()], dim=2) * self.level_weight[:, None, None]
        return torch.cat([points, waves.flatten(1)], dim=1) if self.include_input else waves.flatten(1)

    def with_tangents(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "4 n width"]:
        """Row 0: features; rows 1..3: their derivatives by x, y, z."""
        angle = points[:, None] * self.frequencies[:, None]
        sin, cos = angle.sin(), angle.cos()
        waves = torch.stack([sin, cos], dim=2) * self.level_weight[:, None, None]
        slopes = torch.stack([cos, -sin], dim=2) * (self.level_weight * self.frequencies)[:, None, None]
        eye = torch.eye(3, device=points.device, dtype=points.dtype)
        rows = torch.cat([waves[None], slopes * eye[:, None, None, None]]).flatten(2)
        if not self.include_input:
            return rows
        return torch.cat([torch.cat([points[None], eye[:, None].expand(3, len(points), 3)]), rows], dim=2)
