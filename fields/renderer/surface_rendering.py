"""Surface rendering: the points found by ``sampler/surface_intersection.py`` made differentiable.

The search stores nothing for the backward pass. Two evaluations of the field at its result are enough: one for how the
surface moves with the field, one for what is seen there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.field.sdf import FieldOutput
from quoin.fields.renderer.renderer import Renderer, RendererConfig

MIN_ABS_SLOPE = 1e-3  # least |∇f·d| that is divided by (DVR)


def attach_distance(
    t: Float[Tensor, "rays"], value: Float[Tensor, "rays"], gradient_along: Float[Tensor, "rays"]
) -> Float[Tensor, "rays"]:
    """The distance ``t`` with derivatives: t(θ) = t₀ − (f(x₀; θ) − f(x₀; θ₀)) / (∇f·d) (IDR eq. 3).

    ``value`` is f, evaluated with gradient at origins + directions · t₀, and ``gradient_along`` = ∇f·d there. The
    formula follows from f(o + t d; θ) = 0 by implicit differentiation: ∂t/∂θ = −(∇f·d)⁻¹ ∂f/∂θ (DVR, backward pass).
    Where ``origins`` and ``directions`` require gradients, these reach t through ``value`` in the same way: ∂t/∂o =
    −∇f / (∇f·d), ∂t/∂d = t ∂t/∂o. So cameras can be refined with it.

    |∇f·d| is kept above MIN_ABS_SLOPE with its sign: grazing rays get a smaller gradient than the true one. It is a
    constant, so only first derivatives are right. Rays without a surface have no such distance: the caller leaves them
    out.
    """
    slope = gradient_along.detach()
    slope = torch.where(slope > 0, slope.clamp(min=MIN_ABS_SLOPE), slope.clamp(max=-MIN_ABS_SLOPE))
    return t.detach() - (value - value.detach()) / slope


class SurfaceRendererConfig(RendererConfig):
    """The color of the first surface, and nothing else (DVR, IDR)."""

    needs_surface: ClassVar[bool] = True
    kind: Literal["surface"] = "surface"

    def build(self) -> SurfaceRenderer:
        return SurfaceRenderer()


class SurfaceRenderer(Renderer):
    """The first surface alone (DVR, IDR): one opaque sample on it, or one of length 0 where a ray met none."""

    is_volumetric = False

    def alpha(
        self,
        value: Float[Tensor, "rays 1"],
        cosine: Float[Tensor, "rays 1"],
        deltas: Float[Tensor, "rays 1"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays 1"]:
        """Opacity 1 where the ray met a surface, else 0."""
        return (deltas > 0).to(value.dtype)

    def shading_points(
        self,
        field: Callable[[Tensor], FieldOutput],
        directions: Float[Tensor, "n 3"],
        points: Float[Tensor, "n 3"],
        sample: FieldOutput,
    ) -> tuple[Float[Tensor, "n 3"], FieldOutput]:
        """The points, moving along their rays with the surface as the field changes; and the field there.

        x(θ) = x₀ + (t(θ) − t₀) d (IDR eq. 3). ``sample`` is the field at x₀; feature and normal are taken anew at x(θ),
        so that color supervises shape through them too. That needs an encoding with derivatives by position.
        """
        ahead = attach_distance(points.new_zeros(len(points)), sample.sdf, (sample.gradient * directions).sum(dim=1))
        points = points + directions * ahead[:, None]
        return points, field(points)
