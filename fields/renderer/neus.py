"""Opacity from a signed distance by NeuS (Wang et al. 2021)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.renderer.volume import VolumeRenderer


class Neus(VolumeRenderer):
    """NeuS with a sharpness 1/s that is learnt: exp(10 v), v a parameter (official fields.py)."""

    most_steps = 2.0  # the slope at a sample tells nothing of what is farther: a long section would end in a surface

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness) / 10.0))

    def sharpness(self) -> Float[Tensor, ""]:
        """1/s of the logistic that turns distance into opacity."""
        return torch.exp(10.0 * self.log_sharpness).clamp(1.0, 1e5)

    def alpha(
        self,
        sdf: Float[Tensor, "rays samples"],
        cosine: Float[Tensor, "rays samples"],
        length: Float[Tensor, "rays samples"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays samples"]:
        """Opacity of the sections around samples; ``cosine`` = ∇f·d."""
        return neus_alpha(sdf, cosine, length, self.sharpness(), anneal)

    def guide(
        self, sdf: Float[Tensor, "rays edges"], length: Float[Tensor, "rays 1"], spacing: Float[Tensor, ""]
    ) -> Float[Tensor, "rays edges-1"]:
        """Opacity of sections from the SDF at their ends, read from a volume: no sharper than its ``spacing`` tells."""
        sharpness = torch.minimum(self.sharpness(), 2.0 / torch.maximum(length, spacing))
        cumulative = torch.sigmoid(sdf * sharpness)
        enter, leave = cumulative[:, :-1], cumulative[:, 1:]
        return ((enter - leave + 1e-6) / (enter + 1e-6)).clamp(0.0, 1.0)


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
