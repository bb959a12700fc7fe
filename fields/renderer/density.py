"""Renderer by a learned density, as in NeRF (Mildenhall et al. 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from quoin.fields.renderer.renderer import Renderer, RendererConfig, alpha_from_density, alpha_from_edge_densities


class DensityRendererConfig(RendererConfig):
    """A density that is no function of a distance (NeRF)."""

    kind: Literal["density"] = "density"
    scale: float = Field(30.0, gt=0)
    """Per unit of length; the surface is where the density is 0.69 of it."""

    def build(self) -> DensityRenderer:
        return DensityRenderer(self.scale)


class DensityRenderer(Renderer):
    """Density σ = ``scale`` · softplus(−f): the field's value f is positive where σ < ``scale`` · ln 2.

    f has the sign of a distance and is meshed like one, but is no distance and not smooth.
    """

    scale: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def inv_s(self) -> Float[Tensor, ""]:
        """The scale, in 1 / unit of length."""
        return self.scale

    def density(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """σ in 1 / unit of length."""
        return self.scale * functional.softplus(-value)

    def alpha(
        self,
        value: Float[Tensor, "rays samples"],
        cosine: Float[Tensor, "rays samples"],
        deltas: Float[Tensor, "rays samples"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays samples"]:
        """Opacity of the intervals around samples; ``cosine`` and ``anneal`` have no effect."""
        return alpha_from_density(self.density(value), deltas)

    def proposal_alpha(
        self, value: Float[Tensor, "rays edges"], deltas: Float[Tensor, "rays 1"], spacing: Float[Tensor, ""]
    ) -> Float[Tensor, "rays edges-1"]:
        """Opacity of intervals from the values at their ends."""
        return alpha_from_edge_densities(self.density(value), deltas)
