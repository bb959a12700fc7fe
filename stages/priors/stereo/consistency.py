"""Which planes are believed: those of a smooth surface that other photos' planes confirm, and do not see through."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from quoin.stages.priors.stereo.hypotheses import Planes
from quoin.stages.priors.stereo.views import View, ray_grid, relative_poses

ASIDE_PX = (-8, -4, -1, 1, 4, 8)  # columns and rows about a pixel in which it looks for company
SAME_SURFACE, SMOOTH = 0.01, 0.005  # of the inverse depth: off a neighbour's plane by less
ENOUGH = 3  # witnesses; more of one pixel say no more of its neighbours
DOUBT = 0.1  # for every photo that sees through


def agreement(
    reference: View,
    planes: Planes,
    sources: list[View],
    source_planes: list[Planes],
    tolerance_px: float = 2.0,
    tolerance_share: float = 0.02,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"], Int[Tensor, "h w"]]:
    """How many sources agree, the mean of the reference's depth and theirs, and how many see through it.

    Theirs are brought back to the reference. A source sees through where its own depth lies farther than the point.

    A source agrees where its own plane at the point's image brings the point back to within ``tolerance_px`` of the
    pixel and to a depth that differs by less than ``tolerance_share`` (the forward-backward check of MVSNet's and
    COLMAP's fusion; with the source's plane instead of its depth, it holds at grazing angles too).
    """
    depth = torch.where(planes.w > 0, 1.0 / planes.w.clamp(min=1e-9), torch.zeros_like(planes.w))
    if not sources:
        return torch.zeros_like(depth, dtype=torch.int32), depth, torch.zeros_like(depth, dtype=torch.int32)
    rotation, translation = relative_poses(reference, sources)
    rays, k0 = ray_grid(reference).reshape(3, -1), reference.intrinsics
    points = rays * depth.reshape(1, -1)
    pixel = rays[:2] * k0[:2, None] + k0[2:, None]
    count = torch.zeros_like(points[0], dtype=torch.int32)
    through = torch.zeros_like(count)
    total = depth.reshape(-1).clone()
    for i, (source, other) in enumerate(zip(sources, source_planes, strict=True)):
        seen = rotation[i] @ points + translation[i][:, None]
        k = source.intrinsics
        x, y = seen[:2] / seen[2].clamp(min=1e-6) * k[:2, None] + k[2:, None]
        h, w = other.w.shape
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h) & (seen[2] > 0) & (points[2] > 0)
        at = y.long().clamp(0, h - 1) * w + x.long().clamp(0, w - 1)
        there = Planes(*(field.reshape(-1)[at] for field in other))
        inverse = there.at(x - x.floor() - 0.5, y - y.floor() - 0.5)
        back = torch.stack([(x - k[2]) / k[0], (y - k[3]) / k[1], torch.ones_like(x)]) / inverse.clamp(min=1e-9)
        home = rotation[i].T @ (back - translation[i][:, None])
        returned = home[:2] / home[2].clamp(min=1e-6) * k0[:2, None] + k0[2:, None]
        close = ((returned - pixel) ** 2).sum(dim=0) < tolerance_px**2
        same = (home[2] - points[2]).abs() < tolerance_share * points[2]
        known = inside & (there.w > 0) & (inverse > 0)
        agrees = known & close & same
        through += (known & ~agrees & (seen[2] * inverse < 1.0 - tolerance_share)).int()
        count += agrees.int()
        total += torch.where(agrees, home[2], torch.zeros_like(total))
    return count.view_as(depth), (total / (count + 1)).view_as(depth), through.view_as(depth)


def support(planes: Planes, count: Int[Tensor, "h w"], through: Int[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """How far a plane is supported by what lies around it: witnesses of its surface, and smoothness, less DOUBT.

    Of 36 pixels around, those whose plane, extended, meets this one's inverse depth within SAME_SURFACE give the
    witnesses they have (``count``, ENOUGH at most), in the mean over all 36; then comes the share that meets it within
    SMOOTH. Chance gives a pixel a witness, and seldom its neighbours one on the same surface; a surface that is
    confirmed around a pixel without a witness goes on there. 0 where nothing is known.
    """
    reach = ASIDE_PX[-1]
    h, w = planes.w.shape
    fields = [count.clamp(max=ENOUGH).to(planes.w.dtype), *planes]
    padded = [functional.pad(field, (reach, reach, reach, reach)) for field in fields]
    witnesses, smooth = torch.zeros_like(planes.w), torch.zeros_like(planes.w)
    for dy in ASIDE_PX:
        for dx in ASIDE_PX:
            seen, *there = (f[reach + dy : reach + dy + h, reach + dx : reach + dx + w] for f in padded)
            off = (Planes(*there).at(-float(dx), -float(dy)) - planes.w).abs()
            witnesses += seen * (off < SAME_SURFACE * planes.w)
            smooth += off < SMOOTH * planes.w
    total = (witnesses + smooth) / len(ASIDE_PX) ** 2 - DOUBT * through
    return torch.where(planes.w > 0, total, torch.zeros_like(total))
