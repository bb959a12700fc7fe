"""Density from a signed distance by VolSDF (Yariv et al. 2021)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def laplace_density(sdf: Float[Tensor, "*#shape"], beta: Float[Tensor, "*#shape"]) -> Float[Tensor, "*#shape"]:
    """σ = α Ψ_β(−f) with α = 1/β (VolSDF eq. 2), Ψ_β the cumulative Laplace distribution of mean 0 and scale β.

    From 0 outside over α/2 on the surface to α inside; ``beta`` > 0, in the unit of ``sdf``, for all points [] or one
    each. For ``density_alpha``.
    """
    tail = 0.5 * torch.exp(-sdf.abs() / beta)
    return torch.where(sdf > 0, tail, 1.0 - tail) / beta
