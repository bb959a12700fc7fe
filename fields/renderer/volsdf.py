"""Density from a signed distance by VolSDF (Yariv et al. 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from quoin.fields.renderer.renderer import Renderer, RendererConfig, alpha_from_density, alpha_from_edge_densities

MIN_BETA = 1e-4


class LaplaceRendererConfig(RendererConfig):
    """Density by the Laplace distribution of VolSDF."""

    kind: Literal["laplace"] = "laplace"
    beta: float = Field(0.1, gt=0)
    """At the start."""

    def build(self) -> LaplaceRenderer:
        return LaplaceRenderer(self.beta)


class LaplaceRenderer(Renderer):
    """VolSDF with a learned scale β = |v| + 10⁻⁴ (official density.py)."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.raw_beta = nn.Parameter(torch.tensor(beta - MIN_BETA))

    def beta(self) -> Float[Tensor, ""]:
        """Scale of the Laplace distribution that turns distance into density."""
        return self.raw_beta.abs() + MIN_BETA

    def inv_s(self) -> Float[Tensor, ""]:
        """1/β."""
        return 1.0 / self.beta()

    def alpha(
        self,
        sdf: Float[Tensor, "rays samples"],
        cosine: Float[Tensor, "rays samples"],
        deltas: Float[Tensor, "rays samples"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays samples"]:
        """Opacity of the intervals around samples; ``cosine`` and ``anneal`` have no effect."""
        return alpha_from_density(laplace_density(sdf, self.beta()), deltas)

    def proposal_alpha(
        self, sdf: Float[Tensor, "rays edges"], deltas: Float[Tensor, "rays 1"], spacing: Float[Tensor, ""]
    ) -> Float[Tensor, "rays edges-1"]:
        """Opacity of intervals from the SDF of a volume at their ends, no sharper than its ``spacing`` allows."""
        density = laplace_density(sdf, torch.maximum(self.beta(), 0.5 * torch.maximum(deltas, spacing)))
        return alpha_from_edge_densities(density, deltas)


def laplace_density(sdf: Float[Tensor, "*#shape"], beta: Float[Tensor, "*#shape"]) -> Float[Tensor, "*#shape"]:
    """σ = α Ψ_β(−f) with α = 1/β (VolSDF eq. 2), Ψ_β the cumulative Laplace distribution of mean 0 and scale β.

    From 0 outside over α/2 on the surface to α inside; ``beta`` > 0, in the unit of ``sdf``, for all points [] or one
    each. For ``alpha_from_density``.
    """
    tail = 0.5 * torch.exp(-sdf.abs() / beta)
    return torch.where(sdf > 0, tail, 1.0 - tail) / beta
