"""Volume rendering of a signed distance (NeuS) and of a density, as pure functions of samples along rays."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def neus_alpha(
    sdf: Float[Tensor, "rays samples"],
    cosine: Float[Tensor, "rays samples"],
    length: Float[Tensor, "rays samples"],
    sharpness: Float[Tensor, ""],
    anneal: Float[Tensor, ""],
) -> Float[Tensor, "rays samples"]:
    """Opacity of sections of a ray (NeuS eq. 13): α = max((Φ(f₀) − Φ(f₁)) / Φ(f₀), 0).

    ``sdf`` at section midpoints, ``cosine`` = ∇f·d there, ``length`` of the sections, ``sharpness`` = 1/s of the
    logistic Φ. The section's ends follow from the slope, f₀,₁ = f ∓ cos·δ/2; ``anneal`` 0 → 1 blends from a soft slope
    to the true one, which only lets surfaces that face the ray absorb (official renderer.py, cos_anneal_ratio).
    """
    slope = -(torch.relu(0.5 - 0.5 * cosine) * (1.0 - anneal) + torch.relu(-cosine) * anneal)
    half = slope * length * 0.5
    enter, leave = torch.sigmoid((sdf - half) * sharpness), torch.sigmoid((sdf + half) * sharpness)
    return ((enter - leave + 1e-5) / (enter + 1e-5)).clamp(0.0, 1.0)


def density_alpha(density: Float[Tensor, "rays samples"], length: Float[Tensor, "rays samples"]) -> Tensor:
    """Opacity of sections of constant density: α = 1 − exp(−σδ) (NeRF eq. 3)."""
    return 1.0 - torch.exp(-density * length)


def weights(alpha: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """wᵢ = αᵢ Πⱼ<ᵢ (1 − αⱼ)."""
    through = torch.cumprod(1.0 - alpha + 1e-7, dim=1)
    return alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)


def box_interval(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], low: Tensor, high: Tensor
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays"], Tensor]:
    """Where rays enter and leave a box (slab method), at or after their origin; and whether they do at all."""
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    a, b = (low - origins) * inverse, (high - origins) * inverse
    enter = torch.minimum(a, b).amax(dim=1).clamp(min=0.0)
    leave = torch.maximum(a, b).amin(dim=1)
    return enter, torch.maximum(leave, enter), leave > enter + 1e-6
