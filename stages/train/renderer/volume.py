"""Volume rendering: from densities and opacities of sections of a ray to weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def density_alpha(density: Float[Tensor, "rays samples"], length: Float[Tensor, "rays #samples"]) -> Tensor:
    """Opacity of sections of constant density: α = 1 − exp(−σδ) (NeRF eq. 3)."""
    return 1.0 - torch.exp(-density * length)


def density_alpha_between(density: Float[Tensor, "rays edges"], length: Float[Tensor, "rays #sections"]) -> Tensor:
    """Opacity of the sections [rays, edges - 1] between ``density``, which is taken to be linear in each."""
    return density_alpha(0.5 * (density[:, :-1] + density[:, 1:]), length)


def weights(alpha: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """wᵢ = αᵢ Πⱼ<ᵢ (1 − αⱼ)."""
    through = torch.cumprod(1.0 - alpha + 1e-7, dim=1)
    return alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
