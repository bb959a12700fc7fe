"""Fourier features and their derivative: NeRF's positional encoding, and random directions (Tancik et al. 2020)."""

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
    """Frequencies, each twice the one before."""

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


class FourierEncodingConfig(EncodingConfig):
    """Sines and cosines of random directions (Tancik et al. 2020)."""

    kind: Literal["fourier"] = "fourier"
    waves: int = Field(64, ge=1)
    """Random waves."""
    scale: float = Field(4.0, gt=0)
    """Standard deviation of the frequencies, cycles per unit."""

    def build(self) -> RandomFourierEncoding:
        return RandomFourierEncoding(self.waves, self.scale, seed=0)


class RandomFourierEncoding(Encoding):
    """cos(2πBx), then sin(2πBx) (Tancik et al. 2020, Gaussian mapping): 2 ``n_features`` numbers.

    B [n_features, 3] is normal with standard deviation ``scale``, in cycles per unit of the points. It is drawn once
    from ``seed``, is not trained, and is kept in the state dict.
    """

    radians: Tensor

    def __init__(self, n_features: int, scale: float, seed: int) -> None:
        super().__init__()
        cycles = scale * torch.randn(n_features, 3, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("radians", 2.0 * math.pi * cycles)
        self.width = 2 * n_features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        angle = points @ self.radians.T
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features at points, and the function from ∂f/∂features [n, width] to ∂f/∂points [n, 3]."""
        angle = points @ self.radians.T
        cos, sin = angle.cos(), angle.sin()

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            of_cos, of_sin = slope.chunk(2, dim=1)
            return (of_sin * cos - of_cos * sin) @ self.radians

        return torch.cat([cos, sin], dim=1), pull_back
