"""Volume rendering: from densities and opacities of sections of a ray to weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.field.sdf import FieldOutput


class VolumeRenderer(nn.Module):
    """What all renderers have in common that see a ray's samples where the sampler put them."""

    max_steps: float = math.inf  # of a march: the longest section of a ray whose opacity is worth something

    def shading_points(
        self,
        field: Callable[[Tensor], FieldOutput],
        directions: Float[Tensor, "n 3"],
        points: Float[Tensor, "n 3"],
        sample: FieldOutput,
    ) -> tuple[Float[Tensor, "n 3"], FieldOutput]:
        """The points whose colour is seen, and the field there."""
        return points, sample


def alpha_from_density(density: Float[Tensor, "rays samples"], deltas: Float[Tensor, "rays #samples"]) -> Tensor:
    """Opacity of sections of constant density: α = 1 − exp(−σδ) (NeRF eq. 3)."""
    return 1.0 - torch.exp(-density * deltas)


def alpha_from_edge_densities(density: Float[Tensor, "rays edges"], deltas: Float[Tensor, "rays #sections"]) -> Tensor:
    """Opacity of the sections [rays, edges - 1] between ``density``, which is taken to be linear in each."""
    return alpha_from_density(0.5 * (density[:, :-1] + density[:, 1:]), deltas)


def weights_from_alpha(alpha: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """wᵢ = αᵢ Πⱼ<ᵢ (1 − αⱼ)."""
    through = torch.cumprod(1.0 - alpha + 1e-7, dim=1)
    return alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
