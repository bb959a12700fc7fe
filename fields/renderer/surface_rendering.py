"""Surface rendering: the point found by ``sampler/trace.py`` made differentiable.

The search stores nothing for the backward pass. Two evaluations of the field at its result are enough: one tells how
the surface moves with the field, one what is seen there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.field.sdf import FieldOutput

MIN_ABS_SLOPE = 1e-3  # least |∇f·d| that is divided by (DVR)


def attach_distance(
    t: Float[Tensor, "rays"], value: Float[Tensor, "rays"], gradient_along: Float[Tensor, "rays"]
) -> Float[Tensor, "rays"]:
    """The same distance with its derivatives: t(θ) = t₀ − (f(x₀; θ) − f(x₀; θ₀)) / (∇f·d) (IDR eq. 3).

    ``value`` is f, evaluated with gradient at origins + directions · t₀, and ``gradient_along`` = ∇f·d there. It
    follows from f(o + t d; θ) = 0 by implicit differentiation: ∂t/∂θ = −(∇f·d)⁻¹ ∂f/∂θ (DVR, backward pass). Where
    ``origins`` and ``directions`` ask for gradients, they reach t through ``value`` in the same way: ∂t/∂o =
    −∇f / (∇f·d), ∂t/∂d = t ∂t/∂o. So cameras can be refined with it.

    |∇f·d| is kept above 1e-3 with its sign: rays that graze get a smaller gradient than is true. It is a constant, so
    only first derivatives are right. Rays that found nothing have no such distance: the caller leaves them out.
    """
    slope = gradient_along.detach()
    slope = torch.where(slope > 0, slope.clamp(min=MIN_ABS_SLOPE), slope.clamp(max=-MIN_ABS_SLOPE))
    return t.detach() - (value - value.detach()) / slope


class SurfaceRenderer(nn.Module):
    """Nothing but the first surface (DVR, IDR): one opaque sample on it, or one of no length where a ray met none."""

    def alpha(
        self,
        value: Float[Tensor, "rays 1"],
        cosine: Float[Tensor, "rays 1"],
        deltas: Float[Tensor, "rays 1"],
        anneal: Float[Tensor, ""],
    ) -> Float[Tensor, "rays 1"]:
        """1 where the ray met a surface, else 0."""
        return (deltas > 0).to(value.dtype)

    def shading_points(
        self,
        field: Callable[[Tensor], FieldOutput],
        directions: Float[Tensor, "n 3"],
        points: Float[Tensor, "n 3"],
        sample: FieldOutput,
    ) -> tuple[Float[Tensor, "n 3"], FieldOutput]:
        """The same points, moving along their rays with the surface as the field changes; and the field there.

        x(θ) = x₀ + (t(θ) − t₀) d (IDR eq. 3). ``sample`` is the field at x₀; feature and normal are taken anew at x(θ),
        so that colour teaches shape through them too. That needs an encoding with derivatives by position.
        """
        ahead = attach_distance(points.new_zeros(len(points)), sample.sdf, (sample.gradient * directions).sum(dim=1))
        points = points + directions * ahead[:, None]
        return points, field(points)
