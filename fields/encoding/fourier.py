"""Random Fourier features (Tancik et al. 2020) and their slope."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.encoding.trilinear import PullBack


class RandomFourierEncoding(nn.Module):
    """cos(2πBx), then sin(2πBx) (Tancik et al. 2020, Gaussian mapping): 2 ``n_features`` numbers.

    B [n_features, 3] is normal with standard deviation ``scale``, in cycles per unit of the points; it is drawn once
    from ``seed``, is not trained, and is kept in the state dict.
    """

    radians: Tensor

    def __init__(self, n_features: int, scale: float, seed: int) -> None:
        super().__init__()
        cycles = scale * torch.randn(n_features, 3, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("radians", 2.0 * math.pi * cycles)

    @property
    def width(self) -> int:
        return 2 * len(self.radians)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points."""
        angle = points @ self.radians.T
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    def linearize(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n width"], PullBack]:
        """Features at points, and what turns ∂f/∂features [n, width] into ∂f/∂points [n, 3]."""
        angle = points @ self.radians.T
        cos, sin = angle.cos(), angle.sin()

        def pull_back(slope: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
            of_cos, of_sin = slope.chunk(2, dim=1)
            return (of_sin * cos - of_cos * sin) @ self.radians

        return torch.cat([cos, sin], dim=1), pull_back
