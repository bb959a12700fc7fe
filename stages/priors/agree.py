"""Which depths are believed: those that other photos' depth maps confirm."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.priors.stereo import View, ray_grid, relative_poses


def agreement(
    reference: View,
    depth: Float[Tensor, "h w"],
    sources: list[View],
    source_depths: list[Float[Tensor, "_ _"]],
    tolerance_px: float = 1.0,
    tolerance_share: float = 0.01,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"]]:
    """How many sources agree, and the mean of the reference's depth and theirs, brought back to the reference.

    A source agrees where its own depth at the point's image brings the point back to within ``tolerance_px`` of the
    pixel and to a depth that differs by less than ``tolerance_share`` (the forward-backward check of MVSNet's and
    COLMAP's fusion).
    """
    rotation, translation = relative_poses(reference, sources)
    rays, k0 = ray_grid(reference), reference.intrinsics
    points = rays * depth.reshape(1, -1)
    pixel = rays[:2] * k0[:2, None] + k0[2:, None]
    count = torch.zeros_like(points[0], dtype=torch.int32)
    total = depth.reshape(-1).clone()
    for i, (source, other) in enumerate(zip(sources, source_depths, strict=True)):
        seen = rotation[i] @ points + translation[i][:, None]
        k = source.intrinsics
        xy = seen[:2] / seen[2].clamp(min=1e-6) * k[:2, None] + k[2:, None]
        h, w = other.shape
        inside = (xy[0] >= 0) & (xy[0] < w) & (xy[1] >= 0) & (xy[1] < h) & (seen[2] > 0)
        column, row = xy[0].long().clamp(0, w - 1), xy[1].long().clamp(0, h - 1)
        there = other[row, column]
        # the source's surface along the source pixel's own ray, moved to where the point falls inside that pixel
        back = torch.stack([(xy[0] - k[2]) / k[0], (xy[1] - k[3]) / k[1], torch.ones_like(there)]) * there
        home = rotation[i].T @ (back - translation[i][:, None])
        returned = home[:2] / home[2].clamp(min=1e-6) * k0[:2, None] + k0[2:, None]
        close = (returned - pixel).norm(dim=0) < tolerance_px
        same = (home[2] - points[2]).abs() < tolerance_share * points[2]
        agrees = inside & close & same & (there > 0)
        count += agrees.int()
        total += torch.where(agrees, home[2], torch.zeros_like(total))
    return count.view_as(depth), (total / (count + 1)).view_as(depth)
