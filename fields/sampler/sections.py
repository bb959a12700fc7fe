"""Points on rays, and the sections into which samples cut a ray."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def points_along(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], t: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples 3"]:
    """x = o + t·d."""
    return origins[:, None] + directions[:, None] * t[..., None]


def section_lengths(t: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """Lengths of the sections around ascending samples; they meet midway between neighbours.

    The first and the last sample lie in the middle of theirs.
    """
    middle = 0.5 * (t[:, 1:] + t[:, :-1])
    bounds = torch.cat([2.0 * t[:, :1] - middle[:, :1], middle, 2.0 * t[:, -1:] - middle[:, -1:]], dim=1)
    return bounds.diff(dim=1)


def sections_between(
    edges: Float[Tensor, "rays edges"],
) -> tuple[Float[Tensor, "rays edges-1"], Float[Tensor, "rays edges-1"]]:
    """Middles and lengths of the sections between ascending edges.

    NeuS uses its samples so (official renderer.py): they are edges, the field is asked in between. Then each section
    begins where the one before it ends, so that the opacities of ``neus_alpha`` miss no crossing.
    """
    return 0.5 * (edges[:, 1:] + edges[:, :-1]), edges.diff(dim=1)


def find_first_crossing(sdf: Float[Tensor, "rays samples"]) -> tuple[Int[Tensor, "rays 1"], Bool[Tensor, "rays"]]:
    """The sample after which each ray first goes from outside in; and whether it does (the last but one if not)."""
    enters = (sdf[:, :-1] > 0) & (sdf[:, 1:] <= 0)
    order = torch.arange(enters.shape[1], device=sdf.device)
    return torch.where(enters, order, enters.shape[1] - 1).amin(dim=1, keepdim=True), enters.any(dim=1)
