"""What all renderers share: their interface, volume rendering, and the base of their configurations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.field.sdf import FieldOutput
from quoin.fields.parts import PartConfig


class Renderer(nn.Module):
    """Opacities of samples from the field, and the points whose color is seen.

    Renderers of many samples also have ``inv_s() -> []``, how sharp the surface is in 1 / unit of length, and
    ``proposal_alpha(sdf [rays, edges], deltas [rays, 1], spacing []) -> [rays, edges - 1]``, the opacity of intervals
    from values at their ends, for samplers.
    """

    is_volumetric = True  # False: one sample a ray, on the surface
    max_steps: float = math.inf  # longest interval whose opacity means something, in steps of a march

    def alpha(
        self,
        sdf: Float[Tensor, "rays samples"],
        cosine: Float[Tensor, "rays samples"],
        deltas: Float[Tensor, "rays samples"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays samples"]:
        """Opacity of the intervals around samples; ``cosine`` = ∇f·d, ``anneal`` 0..1 over the training."""
        raise NotImplementedError

    def shading_points(
        self,
        field: Callable[[Tensor], FieldOutput],
        directions: Float[Tensor, "n 3"],
        points: Float[Tensor, "n 3"],
        sample: FieldOutput,
    ) -> tuple[Float[Tensor, "n 3"], FieldOutput]:
        """The points whose color is seen, and the field there; ``sample`` is the field at ``points``."""
        return points, sample


class RendererConfig(PartConfig):
    """Base of the configurations of renderers."""

    needs_surface: ClassVar[bool] = False  # renders the first surface only, by a sampler that finds it

    def build(self) -> Renderer:
        """The renderer."""
        raise NotImplementedError

    @property
    def anneal_share(self) -> float | None:
        """Share of the training over which ``anneal`` rises to 1; None where the renderer has no use for it."""
        return None


def alpha_from_density(density: Float[Tensor, "rays samples"], deltas: Float[Tensor, "rays #samples"]) -> Tensor:
    """Opacity of intervals of constant density: α = 1 − exp(−σδ) (NeRF eq. 3)."""
    return 1.0 - torch.exp(-density * deltas)


def alpha_from_edge_densities(density: Float[Tensor, "rays edges"], deltas: Float[Tensor, "rays #sections"]) -> Tensor:
    """Opacity [rays, edges - 1] of the intervals between ``density``, which is taken to be linear in each."""
    return alpha_from_density(0.5 * (density[:, :-1] + density[:, 1:]), deltas)


def weights_from_alpha(alpha: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """Weights of samples: wᵢ = αᵢ Πⱼ<ᵢ (1 − αⱼ)."""
    through = torch.cumprod(1.0 - alpha + 1e-7, dim=1)
    return alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
