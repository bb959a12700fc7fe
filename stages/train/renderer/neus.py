"""Opacity from a signed distance by NeuS (Wang et al. 2021)."""

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
