"""Samples in equal sections of rays, the intervals around samples, and the first crossing of a surface along them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def section_lengths(t: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """Lengths of the intervals around ascending samples; they meet midway between neighbors.

    The first and the last sample are the middles of theirs.
    """
    middle = 0.5 * (t[:, 1:] + t[:, :-1])
    bounds = torch.cat([2.0 * t[:, :1] - middle[:, :1], middle, 2.0 * t[:, -1:] - middle[:, -1:]], dim=1)
    return bounds.diff(dim=1)


def sections_between(
    edges: Float[Tensor, "rays edges"],
) -> tuple[Float[Tensor, "rays edges-1"], Float[Tensor, "rays edges-1"]]:
    """Middles and lengths of the intervals between ascending edges.

    NeuS uses its samples so (official renderer.py): they are edges, and the field is evaluated in between. Then each
    interval begins where the one before it ends, so that the opacities of ``neus_alpha`` miss no crossing.
    """
    return 0.5 * (edges[:, 1:] + edges[:, :-1]), edges.diff(dim=1)


def stratified_samples(
    near: Float[Tensor, "rays"], far: Float[Tensor, "rays"], jitter: Float[Tensor, "rays samples"]
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"]]:
    """Distances, one in each of ``samples`` equal strata of near..far, and the lengths of the intervals around them.

    tᵢ = near + (far − near)(i + jitterᵢ)/n (NeRF eq. 2). One jitter [rays, 1] expanded to all samples keeps them
    equidistant, as NeuS does.
    """
    n_samples = jitter.shape[1]
    share = (torch.arange(n_samples, device=jitter.device) + jitter) / n_samples
    t = near[:, None] + (far - near)[:, None] * share
    return t, section_lengths(t)


def find_first_crossing(sdf: Float[Tensor, "rays samples"]) -> tuple[Int[Tensor, "rays 1"], Bool[Tensor, "rays"]]:
    """Index of the sample after which each ray first goes from outside in (last but one if never); True if it does."""
    enters = (sdf[:, :-1] > 0) & (sdf[:, 1:] <= 0)
    order = torch.arange(enters.shape[1], device=sdf.device)
    return torch.where(enters, order, enters.shape[1] - 1).amin(dim=1, keepdim=True), enters.any(dim=1)


def interpolate_first_crossing(
    edges: Float[Tensor, "rays edges"], sdf: Float[Tensor, "rays edges"]
) -> tuple[Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """Distance where the SDF first goes from outside in, by linear interpolation; and True where it does."""
    at, has_surface = find_first_crossing(sdf)
    f0, f1 = sdf.gather(1, at), sdf.gather(1, at + 1)
    share = (f0 / (f0 - f1).clamp(min=1e-9)).clamp(0.0, 1.0)
    return torch.lerp(edges.gather(1, at), edges.gather(1, at + 1), share)[:, 0], has_surface


def first_surface(
    sdf: Float[Tensor, "rays samples"],
    t: Float[Tensor, "rays samples"],
    gradient: Float[Tensor, "rays samples 3"],
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays 3"], Bool[Tensor, "rays"]]:
    """Distance and unit normal where a ray first goes from outside in, by linear interpolation; and True where it does.

    Differentiable through the SDF values and gradients at the two samples around the crossing.
    """
    at, has_surface = find_first_crossing(sdf)
    f0, f1 = sdf.gather(1, at)[:, 0], sdf.gather(1, at + 1)[:, 0]
    t0, t1 = t.gather(1, at)[:, 0], t.gather(1, at + 1)[:, 0]
    drop = torch.where(has_surface, f0 - f1, torch.ones_like(f0)).clamp(min=1e-7)
    share = (f0 / drop).clamp(0.0, 1.0)
    index = at[:, :, None].expand(-1, -1, 3)
    normal = torch.lerp(gradient.gather(1, index)[:, 0], gradient.gather(1, index + 1)[:, 0], share[:, None])
    return torch.lerp(t0, t1, share), torch.nn.functional.normalize(normal, dim=1, eps=1e-6), has_surface
