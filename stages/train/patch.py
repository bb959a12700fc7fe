"""Multi-view patch consistency: a patch on the surface's tangent plane must look alike in the photos that see it.

Normalised cross-correlation is blind to gain and offset: it compares photos of any exposure (Geo-NeuS sec. 3.3,
NeuralWarp).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def first_crossing(
    sdf: Float[Tensor, "rays samples"],
    distance: Float[Tensor, "rays samples"],
    gradient: Float[Tensor, "rays samples 3"],
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays 3"], Bool[Tensor, "rays"]]:
    """Distance and unit normal where a ray first goes from outside in, by linear interpolation; and whether it does.

    Differentiable through the SDF values and gradients at the two samples around the crossing.
    """
    sign = (sdf[:, :-1] > 0) & (sdf[:, 1:] <= 0)
    found = sign.any(dim=1)
    order = torch.arange(sign.shape[1], device=sdf.device)
    at = torch.where(sign, order, sign.shape[1] - 1).amin(dim=1, keepdim=True)
    f0, f1 = sdf.gather(1, at)[:, 0], sdf.gather(1, at + 1)[:, 0]
    t0, t1 = distance.gather(1, at)[:, 0], distance.gather(1, at + 1)[:, 0]
    drop = torch.where(found, f0 - f1, torch.ones_like(f0)).clamp(min=1e-7)
    share = (f0 / drop).clamp(0.0, 1.0)
    index = at[:, :, None].expand(-1, -1, 3)
    normal = torch.lerp(gradient.gather(1, index)[:, 0], gradient.gather(1, index + 1)[:, 0], share[:, None])
    return torch.lerp(t0, t1, share), torch.nn.functional.normalize(normal, dim=1, eps=1e-6), found


def plane_points(
    origin: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays pixels 3"],
    surface: Float[Tensor, "rays 3"],
    normal: Float[Tensor, "rays 3"],
) -> Float[Tensor, "rays pixels 3"]:
    """Where the rays of a patch meet the tangent plane at ``surface``."""
    along = torch.einsum("rpk,rk->rp", directions, normal)
    along = torch.where(along.abs() < 1e-3, torch.full_like(along, -1e-3), along)
    height = ((surface - origin) * normal).sum(dim=1)
    return origin[:, None] + directions * (height[:, None] / along)[..., None]


def ncc(reference: Float[Tensor, "*#n pixels"], other: Float[Tensor, "*#n pixels"]) -> Float[Tensor, "..."]:
    """Normalised cross-correlation over the last axis, in [-1, 1]; 0 where either is flat."""
    a = reference - reference.mean(dim=-1, keepdim=True)
    b = other - other.mean(dim=-1, keepdim=True)
    return (a * b).sum(dim=-1) / torch.sqrt((a * a).sum(dim=-1) * (b * b).sum(dim=-1) + 1e-6)


def best_views_loss(
    dissimilarity: Float[Tensor, "rays sources"], valid: Bool[Tensor, "rays sources"], n_best: int, reject: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean of 1 − NCC over each ray's ``n_best`` sources, without those above ``reject`` (occluded); the share used.

    Taking the best views only is what makes it robust to occlusion (COLMAP's and Geo-NeuS's choice too).
    """
    best, _ = torch.where(valid, dissimilarity, torch.full_like(dissimilarity, 2.0)).topk(n_best, dim=1, largest=False)
    keep = (best.detach() < reject).to(best.dtype)
    return (best * keep).sum() / keep.sum().clamp(min=1.0), keep.mean()
