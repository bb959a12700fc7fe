"""Opacity from a signed distance by NeuS (Wang et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.renderer.renderer import Renderer, RendererConfig


class NeusRendererConfig(RendererConfig):
    """Opacity by the logistic of NeuS."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"sharpness": "inv_s"}
    kind: Literal["neus"] = "neus"
    inv_s: float = Field(60.0, gt=0)
    """1/s at the start."""
    anneal: float = Field(0.25, gt=0, le=1)
    """Share of the steps over which the true slope takes over."""

    def build(self) -> NeusRenderer:
        return NeusRenderer(self.inv_s)

    @property
    def anneal_share(self) -> float:
        return self.anneal


class NeusRenderer(Renderer):
    """NeuS with a learned 1/s = exp(10 v), v a parameter (official fields.py)."""

    max_steps = 2.0  # the slope at a sample says nothing of what is farther: a long interval would end in a surface

    def __init__(self, inv_s: float) -> None:
        super().__init__()
        self.log_inv_s = nn.Parameter(torch.tensor(math.log(inv_s) / 10.0))

    def inv_s(self) -> Float[Tensor, ""]:
        """1/s of the logistic that turns distance into opacity."""
        return torch.exp(10.0 * self.log_inv_s).clamp(1.0, 1e5)

    def alpha(
        self,
        sdf: Float[Tensor, "rays samples"],
        cosine: Float[Tensor, "rays samples"],
        deltas: Float[Tensor, "rays samples"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays samples"]:
        """Opacity of the intervals around samples; ``cosine`` = ∇f·d."""
        return neus_alpha(sdf, cosine, deltas, self.inv_s(), anneal)

    def proposal_alpha(
        self, sdf: Float[Tensor, "rays edges"], deltas: Float[Tensor, "rays 1"], spacing: Float[Tensor, ""]
    ) -> Float[Tensor, "rays edges-1"]:
        """Opacity of intervals from the SDF of a volume at their ends, no sharper than its ``spacing`` allows."""
        inv_s = torch.minimum(self.inv_s(), 2.0 / torch.maximum(deltas, spacing))
        cumulative = torch.sigmoid(sdf * inv_s)
        phi_near, phi_far = cumulative[:, :-1], cumulative[:, 1:]
        return ((phi_near - phi_far + 1e-6) / (phi_near + 1e-6)).clamp(0.0, 1.0)


def neus_alpha(
    sdf: Float[Tensor, "rays samples"],
    cosine: Float[Tensor, "rays samples"],
    deltas: Float[Tensor, "rays samples"],
    inv_s: Float[Tensor, ""],
    anneal: Float[Tensor, ""],
) -> Float[Tensor, "rays samples"]:
    """Opacity of intervals of a ray (NeuS eq. 13): α = max((Φ(f₀) − Φ(f₁)) / Φ(f₀), 0).

    ``sdf`` at their midpoints, ``cosine`` = ∇f·d there, ``deltas`` their lengths, ``inv_s`` = 1/s of the logistic Φ.
    The values at the ends of an interval follow from the slope, f₀,₁ = f ∓ cos·δ/2; ``anneal`` 0 → 1 blends from a soft
    slope to the true one, with which only surfaces that face the ray absorb (official renderer.py, cos_anneal_ratio).
    """
    slope = -(torch.relu(0.5 - 0.5 * cosine) * (1.0 - anneal) + torch.relu(-cosine) * anneal)
    half = slope * deltas * 0.5
    phi_near, phi_far = torch.sigmoid((sdf - half) * inv_s), torch.sigmoid((sdf + half) * inv_s)
    return ((phi_near - phi_far + 1e-5) / (phi_near + 1e-5)).clamp(0.0, 1.0)
