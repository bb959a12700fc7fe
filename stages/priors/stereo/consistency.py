"""Filters of depth maps: how many other photos confirm a plane or see through it, and speckles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from quoin.pipeline.geometry.mesh import connected_components
from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses
from quoin.stages.priors.stereo.views import StereoView, ray_grid, relative_poses

Array = np.ndarray

MIN_SEGMENT_PX = 25  # pixels of a connected segment; smaller ones are speckles
MAX_DEPTH_STEP_SHARE = 0.05  # of depth, between neighboring pixels of a surface; few grazing surfaces are steeper

_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
_PAIRS = (  # right, below, below right, below left
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_FIRST, _FIRST), (_LAST, _LAST)),
    ((_FIRST, _LAST), (_LAST, _FIRST)),
)


@dataclass(frozen=True)
class ConsistencyParams:
    """Tuned numbers of the geometric consistency check."""

    # rows and columns to the pixels that may support one
    support_offsets_px: tuple[int, ...] = (-8, -4, -1, 1, 4, 8)
    same_surface_share: float = 0.01  # of inverse depth: closer to a neighbor's plane is the same surface
    smooth_share: float = 0.005  # of inverse depth: closer to a neighbor's plane is smooth
    max_supporting_views: int = 3  # counted for one pixel
    violation_penalty: float = 0.1  # of support, for every photo that sees through the plane


CONSISTENCY_PARAMS = ConsistencyParams()


def geometric_consistency(
    reference: StereoView,
    planes: PlaneHypotheses,
    sources: list[StereoView],
    source_planes: list[PlaneHypotheses],
    tolerance_px: float = 2.0,
    tolerance_share: float = 0.02,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"], Int[Tensor, "h w"]]:
    """Number of sources that agree with each pixel's plane, mean depth of the plane and theirs, number of violations.

    A source agrees if its own plane, at the image of the pixel's point, reprojects to within ``tolerance_px`` of the
    pixel at a depth that differs by less than ``tolerance_share`` (the forward-backward check of MVSNet's and COLMAP's
    fusion; using the source's plane instead of its depth, it also holds at grazing angles). A source violates the plane
    if its own depth lies farther than the point: it sees through.
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
    """Support [h, w] of each plane by the pixels around it, minus a penalty for every photo that sees through it.

    36 pixels around (``support_offsets_px``) are compared with the plane, each by its own plane extended to this pixel.
    Those on the same surface contribute the number of views that confirm them (``count``, capped), and those that
    connect smoothly contribute 1; both are averaged over all 36. One view may confirm a chance match, but seldom its
    neighbors on the same surface; a pixel that no view confirms is supported on a surface confirmed around it.
    0 where there is no plane.
    """
    params = CONSISTENCY_PARAMS
    reach = params.support_offsets_px[-1]
    h, w = planes.w.shape
    fields = [count.clamp(max=params.max_supporting_views).to(planes.w.dtype), *planes]
    padded = [functional.pad(field, (reach, reach, reach, reach)) for field in fields]
    supporting_views, smooth = torch.zeros_like(planes.w), torch.zeros_like(planes.w)
    for dy in params.support_offsets_px:
        for dx in params.support_offsets_px:
            neighbor_count, *sampled = (f[reach + dy : reach + dy + h, reach + dx : reach + dx + w] for f in padded)
            off = (PlaneHypotheses(*sampled).inverse_depth_at(-float(dx), -float(dy)) - planes.w).abs()
            supporting_views += neighbor_count * (off < params.same_surface_share * planes.w)
            smooth += off < params.smooth_share * planes.w
    total = (supporting_views + smooth) / len(params.support_offsets_px) ** 2 - params.violation_penalty * violations
    return torch.where(planes.w > 0, total, torch.zeros_like(total))


# -- speckles ----------------------------------------------------------------------------------------------------------


def speckles(depth: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pixels with a depth (> 0) in segments of fewer than MIN_SEGMENT_PX pixels.

    8-neighbors belong to one segment if their depths differ by less than MAX_DEPTH_STEP_SHARE.
    """
    is_valid = depth > 0
    log_depth = np.log(np.where(is_valid, depth, 1.0))
    number = np.arange(depth.size).reshape(depth.shape)
    connected = [
        is_valid[a] & is_valid[b] & (np.abs(log_depth[a] - log_depth[b]) < MAX_DEPTH_STEP_SHARE) for a, b in _PAIRS
    ]
    first = np.concatenate([number[a][join] for (a, _), join in zip(_PAIRS, connected, strict=True)])
    second = np.concatenate([number[b][join] for (_, b), join in zip(_PAIRS, connected, strict=True)])
    segment = connected_components(first, second, depth.size)[1]
    small = np.bincount(segment) < MIN_SEGMENT_PX
    return is_valid & small[segment].reshape(depth.shape)
