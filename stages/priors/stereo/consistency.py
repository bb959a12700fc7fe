"""Which planes are believed: those of a smooth surface that other photos' planes confirm, and do not see through."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses
from quoin.stages.priors.stereo.views import StereoView, ray_grid, relative_poses

SUPPORT_OFFSETS_PX = (-8, -4, -1, 1, 4, 8)  # columns and rows about a pixel in which it looks for company
SAME_SURFACE_SHARE, SMOOTH_SHARE = 0.01, 0.005  # of the inverse depth: off a neighbour's plane by less
MAX_SUPPORTING_VIEWS = 3  # witnesses; more of one pixel say no more of its neighbours
VIOLATION_PENALTY = 0.1  # for every photo that sees through


def geometric_consistency(
    reference: StereoView,
    planes: PlaneHypotheses,
    sources: list[StereoView],
    source_planes: list[PlaneHypotheses],
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
    violations = torch.zeros_like(count)
    total = depth.reshape(-1).clone()
    for i, (source, source_hypotheses) in enumerate(zip(sources, source_planes, strict=True)):
        points_source = rotation[i] @ points + translation[i][:, None]
        k = source.intrinsics
        x, y = points_source[:2] / points_source[2].clamp(min=1e-6) * k[:2, None] + k[2:, None]
        h, w = source_hypotheses.w.shape
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h) & (points_source[2] > 0) & (points[2] > 0)
        at = y.long().clamp(0, h - 1) * w + x.long().clamp(0, w - 1)
        sampled = PlaneHypotheses(*(field.reshape(-1)[at] for field in source_hypotheses))
        inverse = sampled.inverse_depth_at(x - x.floor() - 0.5, y - y.floor() - 0.5)
        back = torch.stack([(x - k[2]) / k[0], (y - k[3]) / k[1], torch.ones_like(x)]) / inverse.clamp(min=1e-9)
        reprojected = rotation[i].T @ (back - translation[i][:, None])
        reprojected_px = reprojected[:2] / reprojected[2].clamp(min=1e-6) * k0[:2, None] + k0[2:, None]
        close = ((reprojected_px - pixel) ** 2).sum(dim=0) < tolerance_px**2
        same = (reprojected[2] - points[2]).abs() < tolerance_share * points[2]
        is_valid = inside & (sampled.w > 0) & (inverse > 0)
        agrees = is_valid & close & same
        violations += (is_valid & ~agrees & (points_source[2] * inverse < 1.0 - tolerance_share)).int()
        count += agrees.int()
        total += torch.where(agrees, reprojected[2], torch.zeros_like(total))
    return count.view_as(depth), (total / (count + 1)).view_as(depth), violations.view_as(depth)


def local_support(
    planes: PlaneHypotheses, count: Int[Tensor, "h w"], violations: Int[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """How far a plane is supported by what lies around it: witnesses of its surface, and smoothness, less
    VIOLATION_PENALTY.

    Of 36 pixels around, those whose plane, extended, meets this one's inverse depth within SAME_SURFACE_SHARE give the
    witnesses they have (``count``, MAX_SUPPORTING_VIEWS at most), in the mean over all 36; then comes the share that
    meets it within SMOOTH_SHARE. Chance gives a pixel a witness, and seldom its neighbours one on the same surface; a
    surface that is confirmed around a pixel without a witness goes on there. 0 where nothing is known.
    """
    reach = SUPPORT_OFFSETS_PX[-1]
    h, w = planes.w.shape
    fields = [count.clamp(max=MAX_SUPPORTING_VIEWS).to(planes.w.dtype), *planes]
    padded = [functional.pad(field, (reach, reach, reach, reach)) for field in fields]
    supporting_views, smooth = torch.zeros_like(planes.w), torch.zeros_like(planes.w)
    for dy in SUPPORT_OFFSETS_PX:
        for dx in SUPPORT_OFFSETS_PX:
            neighbor_count, *sampled = (f[reach + dy : reach + dy + h, reach + dx : reach + dx + w] for f in padded)
            off = (PlaneHypotheses(*sampled).inverse_depth_at(-float(dx), -float(dy)) - planes.w).abs()
            supporting_views += neighbor_count * (off < SAME_SURFACE_SHARE * planes.w)
            smooth += off < SMOOTH_SHARE * planes.w
    total = (supporting_views + smooth) / len(SUPPORT_OFFSETS_PX) ** 2 - VIOLATION_PENALTY * violations
    return torch.where(planes.w > 0, total, torch.zeros_like(total))
