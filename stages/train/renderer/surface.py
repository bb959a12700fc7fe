"""Surface rendering: the distance found by ``sampler/trace.py`` made differentiable, and what rays without one teach.

The search stores nothing for the backward pass. One more evaluation at its result, with gradient, is enough:

    distance, found = sphere_trace(field.sdf, origins, directions, near, far)
    sample = field(origins + directions * distance[:, None])
    distance = attach_distance(distance, sample.sdf, (sample.gradient * directions).sum(dim=1))
    surface = origins + directions * distance[:, None]
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

STEEPEST = 1e-3  # least |∇f·d| that is divided by (DVR)


def attach_distance(
    distance: Float[Tensor, "rays"], value: Float[Tensor, "rays"], gradient_along: Float[Tensor, "rays"]
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
    slope = torch.where(slope > 0, slope.clamp(min=STEEPEST), slope.clamp(max=-STEEPEST))
    return distance.detach() - (value - value.detach()) / slope


def silhouette_loss(
    least_sdf: Float[Tensor, "rays"],
    inside: Bool[Tensor, "rays"],
    found: Bool[Tensor, "rays"],
    alpha: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Masks by the least SDF along each ray: BCE(sigmoid(−α f), O) / α, its mean over all rays (IDR eq. 7, mask loss).

    It counts on rays that found no surface, or are not ``inside`` the photo's mask O; the others are for colour to
    teach. ``alpha`` in 1 / unit of length sharpens during training (50, doubled five times, in IDR).
    """
    cost = functional.binary_cross_entropy_with_logits(-alpha * least_sdf, inside.to(least_sdf.dtype), reduction="none")
    return torch.where(inside & found, 0.0, cost).mean() / alpha


def empty_points_loss(value: Float[Tensor, "n"], weight: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Points where nothing should be: mean −log(1 − occupancy), ``value`` the logit of being empty (DVR, L_freespace).

    A random point on each ray outside the mask. ``weight`` leaves out the others at a fixed shape.
    """
    return (functional.softplus(-value) * weight).sum() / weight.sum().clamp(min=1e-6)


def occupied_points_loss(value: Float[Tensor, "n"], weight: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Points where something should be: mean −log(occupancy), ``value`` the logit of being empty (DVR, L_occupancy).

    A random point on each ray inside the mask that found no surface. ``weight`` leaves out the others.
    """
    return (functional.softplus(value) * weight).sum() / weight.sum().clamp(min=1e-6)
