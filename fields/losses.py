"""Loss terms, each a pure function of what was rendered or evaluated; lengths in the block's unit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def color_loss(
    rendered: Float[Tensor, "rays 3"], photo: Float[Tensor, "rays 3"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Mean absolute difference over channels and rays that count (NeuS eq. 15)."""
    return ((rendered - photo).abs().mean(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def color_squared_loss(
    rendered: Float[Tensor, "rays 3"], photo: Float[Tensor, "rays 3"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Mean squared difference over channels and rays that count (NeRF eq. 6): what PSNR asks for."""
    return (((rendered - photo) ** 2).mean(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def eikonal_loss(gradient: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean of (|∇f| − 1)² (Gropp et al. 2020, eq. 2)."""
    return ((torch.sqrt((gradient * gradient).sum(dim=1) + 1e-8) - 1.0) ** 2).mean()


def curvature_loss(curvature: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Mean |ε ∇²f|: how far the slope changes over a cell of side ε of the finest active level.

    Neuralangelo (eq. 6) has mean |∇²f| and divides its weight by a level's growth for each level that comes in: the
    same, with ε at the coarsest level taken into the weight.
    """
    return curvature.abs().mean()


def surface_points_loss(sdf: Float[Tensor, "n"], weight: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """SfM points lie on the surface: mean |f| weighted by how well each is known (Geo-NeuS eq. 10)."""
    return (sdf.abs() * weight).sum() / weight.sum().clamp(min=1e-6)


def normals_loss(
    gradient: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"], weight: Float[Tensor, "n"]
) -> Float[Tensor, ""]:
    """The slope follows the normals of points on planes: mean 1 − cos; normals of 0 are not known, and ask nothing."""
    known_weight = (normal != 0).any(dim=1) * weight
    cosine = (torch.nn.functional.normalize(gradient, dim=1, eps=1e-6) * normal).sum(dim=1)
    return ((1.0 - cosine) * known_weight).sum() / known_weight.sum().clamp(min=1e-6)


def free_space_loss(sdf: Float[Tensor, "n"], margin: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Between a camera and a point it saw there is nothing: hinge that asks for f ≥ ``margin``."""
    return torch.relu(margin - sdf).mean()


def sky_loss(
    opacity: Float[Tensor, "rays"], sky: Float[Tensor, "rays"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Nothing stands before sky: −ln(1 − opacity) of its rays, mean over all (NeuralRecon-W: cross-entropy to 0).

    Opacities count as 0.1 % less than they are, so that what is opaque for sure has a slope too.
    """
    return (-torch.log1p(-0.999 * opacity) * sky * weight).mean()


def semantic_loss(
    logits: Float[Tensor, "rays kinds"], target: Float[Tensor, "rays kinds"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Cross-entropy of rendered labels to a guess, one-hot or all 0 where there is none (ManhattanSDF)."""
    return -((target * torch.log_softmax(logits, dim=1)).sum(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)


def manhattan_loss(
    logits: Float[Tensor, "rays kinds"], manhattan_error: Float[Tensor, "rays kinds"], weight: Float[Tensor, "rays"]
) -> Float[Tensor, ""]:
    """Floors are level and walls upright, as far as each ray is thought to see one (ManhattanSDF)."""
    return ((torch.softmax(logits, dim=1) * manhattan_error).sum(dim=1) * weight).sum() / weight.sum().clamp(min=1.0)
