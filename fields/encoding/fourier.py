"""Random Fourier features (Tancik et al. 2020) and their derivative."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from quoin.fields.encoding.encoding import Encoding, EncodingConfig, PullBack


class FourierEncodingConfig(EncodingConfig):
    """Sines and cosines of random directions (Tancik et al. 2020)."""

    kind: Literal["fourier"] = "fourier"
    waves: int = Field(64, ge=1)
    scale: float = Field(4.0, gt=0)  # standard deviation of the frequencies, cycles per unit

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
