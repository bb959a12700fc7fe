"""A density that is learnt as such (Mildenhall et al. 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quoin.fields.renderer.volume import VolumeRenderer, alpha_from_density, alpha_from_edge_densities


class DensityRenderer(VolumeRenderer):
    """σ = ``scale`` · softplus(−f): f is the field's value, positive where it is emptier than ``scale`` · ln 2.

    With the sign of a distance, f is meshed as one; it is none, and is not smooth.
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
        """Opacity of the sections around samples; their slope and ``anneal`` do not matter."""
        return alpha_from_density(self.density(value), deltas)

    def proposal_alpha(
        self, value: Float[Tensor, "rays edges"], deltas: Float[Tensor, "rays 1"], spacing: Float[Tensor, ""]
    ) -> Float[Tensor, "rays edges-1"]:
        """Opacity of sections from the values at their ends."""
        return alpha_from_edge_densities(self.density(value), deltas)
