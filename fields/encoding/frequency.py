"""Frequency encoding (NeRF's positional encoding) and its derivative."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from quoin.fields.encoding.encoding import Encoding, EncodingConfig, PullBack


class FrequencyEncodingConfig(EncodingConfig):
    """Sines and cosines of doubling frequency (NeRF)."""

    kind: Literal["frequency"] = "frequency"
    frequencies: int = Field(6, ge=0, le=16)

    def build(self) -> FrequencyEncoding:
        return FrequencyEncoding(self.frequencies, include_input=False)


class FrequencyEncoding(Encoding):
    """x, then sin(2ᵏx) and cos(2ᵏx) for k = 0, 1, …: 3 + 6 ``n_frequencies`` numbers, 3 fewer without x.

    Mildenhall et al. 2020, eq. 4, but without its π, as in the official code of NeRF and NeuS: over [-1, 1] the lowest
    wave then does not repeat.
    """

    frequencies: Tensor
    level_weight: Tensor

    def __init__(self, n_frequencies: int, include_input: bool = True) -> None:
        super().__init__()
        self.n_levels, self.include_input = n_frequencies, include_input
        self.register_buffer("frequencies", torch.exp2(torch.arange(n_frequencies).float()), persistent=False)
        self.register_buffer("level_weight", torch.ones(n_frequencies))
        self.width = 3 * include_input + 6 * n_frequencies

    def set_progress(self, active_levels: float) -> None:
        """Coarse to fine: wave k weighs (1 − cos(π clamp(``active_levels`` − k, 0, 1))) / 2 (Nerfies sec. 3.5)."""
        level = torch.arange(self.n_levels, device=self.level_weight.device)
        self.level_weight.copy_(0.5 - 0.5 * torch.cos(math.pi * (active_levels - level).clamp(0.0, 1.0)))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        angle = points[:, None] * self.frequencies[:, None]
        waves = torch.stack([angle.sin(), angle.cos()], dim=2) * self.level_weight[:, None, None]
        return torch.cat([points, waves.flatten(1)], dim=1) if self.include_input else waves.flatten(1)

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features at points, and the function from ∂f/∂features [n, width] to ∂f/∂points [n, 3]."""
        angle = points[:, None] * self.frequencies[:, None]
        slopes = torch.stack([angle.cos(), -angle.sin()], dim=2) * (self.level_weight * self.frequencies)[:, None, None]

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            waves = slope[:, 3 * self.include_input :].view(slopes.shape)
            through = (waves * slopes).sum(dim=(1, 2))
            return through + slope[:, :3] if self.include_input else through

        return self(points), pull_back
