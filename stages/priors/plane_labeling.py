"""Labeling of a photo's pixels with planes of the scene, also in textureless regions.

Manhattan-world stereo (Furukawa et al. 2009): every pixel takes one of the candidate planes, or none. The energy has
terms for stereo depths, for free space seen by other photos, for color differences, and for neighboring pixels; labels
change where planes intersect or at edges of the photo. It is minimized by semi-global aggregation (Hirschmüller 2008),
with a penalty for every pair of planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from quoin.pipeline.geometry.planes import PlaneSet
from quoin.stages.priors.stereo.views import StereoView, ray_grid, relative_poses


@dataclass(frozen=True)
class LabelingParams:
    """Tuned costs of the plane labeling; costs are relative to one another, without unit."""

    no_plane_cost: float = 0.7  # of choosing no plane; a wrong plane may cost several times that
    depth_tolerance_share: float = 0.02  # of the stereo depth: a plane this far off it costs in full
    depth_cost: float = 2.0  # of a plane off the stereo depth
    violation_share: float = 0.03  # of depth: another photo that sees this much farther sees through the plane
    violation_cost: float = 0.5  # for each photo that sees through the plane
    same_depth_share: float = 0.015  # of depth: another photo's depth this close confirms the plane
    same_depth_gain: float = 0.25  # for each photo that confirms the plane
    max_votes: int = 3  # photos that count for, and against
    max_color_difference: float = 0.12  # color in [0, 1]: more is no worse
    color_cost: float = 1.0  # of the largest color difference
    n_best_colors: int = 3  # photos with the smallest differences, which are averaged
    unseen_color_share: float = 0.3  # of the largest difference, assumed of a photo that does not see the point
    smoothness_cost: float = 2.0  # of a change of planes between neighbors in a smooth part of the photo
    smoothness_depth_share: float = 0.02  # of depth: a change between planes this far apart costs in full
    crease_share: float = 0.5  # of the cost of a change where the two planes intersect
    edge_sigma_gray: float = 0.03  # gradient of gray in [0, 1] per pixel at an edge
    min_edge_share: float = 0.15  # of the cost of a change, at a strong edge


LABELING_PARAMS = LabelingParams()


class PlanarView(NamedTuple):
    """A photo to be labeled: its view, colors [3, h, w] in [0, 1] divided by its exposure, depth [h, w], 0 for none."""

    view: StereoView
    color: Tensor
    depth: Tensor


def plane_fields(
    planes: PlaneSet, view: StereoView
) -> tuple[Float[Tensor, "k h w"], Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Inverse depths w of the planes in a photo (<= 0: behind it, or seen from the back), and their slopes a, b."""
    normal = torch.as_tensor(planes.normal, dtype=view.gray.dtype, device=view.gray.device)
    offset = torch.as_tensor(planes.offset, dtype=view.gray.dtype, device=view.gray.device)
    normal_cam = normal @ view.cam_from_world[:, :3].T
    height = offset + normal_cam @ view.cam_from_world[:, 3]  # negative: the camera's height above the plane
    safe = torch.where(height < 0, height, torch.full_like(height, -1e9))
    w = torch.einsum("kc,chw->khw", normal_cam, ray_grid(view)) / safe[:, None, None]
    w = torch.where((height < 0)[:, None, None], w, -torch.ones_like(w))
    return w, normal_cam[:, 0] / view.intrinsics[0] / safe, normal_cam[:, 1] / view.intrinsics[1] / safe


def in_front_of_bounds(
    bounds: PlaneSet, slack: float, view: StereoView, depth: Float[Tensor, "k h w"]
) -> Bool[Tensor, "k h w"]:
    """Which pixels, at these depths, lie no farther than ``slack`` behind any of the planes ``bounds``."""
    in_front = torch.ones_like(depth, dtype=torch.bool)
    rays = ray_grid(view)
    for normal, offset in zip(bounds.normal, bounds.offset, strict=True):
        normal_cam = torch.as_tensor(normal, dtype=depth.dtype, device=depth.device) @ view.cam_from_world[:, :3].T
        beyond = float(offset) + normal_cam @ view.cam_from_world[:, 3]
        if beyond < 0:  # the camera is in front of the plane
            in_front &= torch.einsum("c,chw->hw", normal_cam, rays) * depth - beyond > -slack
    return in_front


def unary_costs(
    planar_view: PlanarView, sources: list[PlanarView], w: Float[Tensor, "k h w"], possible: Bool[Tensor, "k h w"]
) -> Float[Tensor, "k+1 h w"]:
    """Cost of each plane (inverse depths ``w``) at each pixel, and as the last label that of no plane."""
    params = LABELING_PARAMS
    depth = 1.0 / w.clamp(min=1e-9)
    total = torch.zeros_like(w)
    own = planar_view.depth[None]
    off = ((depth / own.clamp(min=1e-9) - 1.0).abs() / params.depth_tolerance_share).clamp(max=1.0)
    total += torch.where(own > 0, params.depth_cost * off, torch.zeros_like(off))
    violations, same, color_costs = torch.zeros_like(w), torch.zeros_like(w), []
    rays = ray_grid(planar_view.view)
    for source in sources:
        (rotation,), (translation,) = relative_poses(planar_view.view, [source.view])
        point = torch.einsum("dc,chw->dhw", rotation, rays)[:, None] * depth + translation[:, None, None, None]
        z = point[2].clamp(min=1e-6)
        k, (height, width) = source.view.intrinsics, source.depth.shape
        x, y = point[0] / z * k[0] + k[2], point[1] / z * k[1] + k[3]
        inside = possible & (point[2] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        at = y.long().clamp(0, height - 1) * width + x.long().clamp(0, width - 1)
        source_depth = source.depth.reshape(-1)[at]
        has_depth = inside & (source_depth > 0)
        violations += (has_depth & (source_depth > (1.0 + params.violation_share) * z)).float()
        same += (has_depth & ((source_depth / z - 1.0).abs() < params.same_depth_share)).float()
        grid = torch.stack([x / width * 2.0 - 1.0, y / height * 2.0 - 1.0], dim=-1).reshape(1, -1, w.shape[2], 2)
        sampled = functional.grid_sample(source.color[None], grid, align_corners=False, padding_mode="border")
        difference = (sampled[0].view(3, *w.shape) - planar_view.color[:, None]).abs().mean(dim=0)
        hidden = has_depth & (source_depth < (1.0 - params.violation_share) * z)
        color_costs.append(torch.where(inside & ~hidden, difference.clamp(max=params.max_color_difference), torch.nan))
    total += params.violation_cost * violations.clamp(max=params.max_votes) - params.same_depth_gain * same.clamp(
        max=params.max_votes
    )
    if color_costs:
        best = (
            torch.stack(color_costs)
            .nan_to_num(nan=params.unseen_color_share * params.max_color_difference)
            .sort(dim=0)
            .values[: params.n_best_colors]
            .mean(dim=0)
        )
        best = functional.avg_pool2d(best[None], 5, 1, 2, count_include_pad=False)[0]
        total += params.color_cost * best / params.max_color_difference
    total = torch.where(possible, total, torch.full_like(total, 1e3))
    return torch.cat([total, torch.full_like(total[:1], params.no_plane_cost)])


def smoothness_costs(gray: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Cost of a change of planes at each pixel: low at edges of the photo."""
    params = LABELING_PARAMS
    padded = functional.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2.0
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2.0
    edge = torch.sqrt(dx * dx + dy * dy)
    return params.smoothness_cost * (
        params.min_edge_share + (1.0 - params.min_edge_share) * torch.exp(-((edge / params.edge_sigma_gray) ** 2))
    )


def aggregate_costs(
    unary: Float[Tensor, "l h w"], depth: Float[Tensor, "k h w"], smoothness: Float[Tensor, "h w"]
) -> Float[Tensor, "l h w"]:
    """Costs of the best paths to each pixel along eight directions, on average (semi-global matching); l = k + 1."""
    total = torch.zeros_like(unary)
    for transposed, column_offsets in ((False, (0, 1, -1)), (True, (0,))):
        own, z, t = (x.transpose(-1, -2) if transposed else x for x in (unary, depth, smoothness))
        rows, transitions = own.transpose(0, 1).contiguous(), transition_costs(z, t)
        path_costs = _along_rows(rows, transitions, column_offsets) + _along_rows(
            rows.flip(0), transitions.flip(0), column_offsets
        ).flip(0)
        path_costs = path_costs.transpose(0, 1)
        total += path_costs.transpose(-1, -2) if transposed else path_costs
    return total / 8.0


def transition_costs(depth: Float[Tensor, "k h w"], smoothness: Float[Tensor, "h w"]) -> Float[Tensor, "h l l w"]:
    """Cost of label i (second axis) at a pixel whose neighbor has label j (third axis); l = k + 1."""
    z = depth.transpose(0, 1)
    apart = (z[:, :, None] - z[:, None]).abs_() / torch.maximum(z[:, :, None], z[:, None]).clamp_(min=1e-9)
    n_planes, (height, width) = len(depth), smoothness.shape
    pair = smoothness.new_ones(height, n_planes + 1, n_planes + 1, width)
    pair[:, :n_planes, :n_planes] = apart.div_(LABELING_PARAMS.smoothness_depth_share).clamp_(
        LABELING_PARAMS.crease_share, 1.0
    )
    pair.diagonal(dim1=1, dim2=2).zero_()
    return pair.mul_(smoothness[:, None, None])


def _along_rows(
    unary: Float[Tensor, "h l w"], transitions: Float[Tensor, "h l l w"], column_offsets: Sequence[int]
) -> Float[Tensor, "h l w"]:
    """Path costs from the first row to the last, summed over the paths of ``column_offsets`` (-1, 0, 1).

    A path comes to a pixel from the row above, so many columns to its left.
    """
    total = torch.empty_like(unary)
    total[0] = len(column_offsets) * unary[0]
    out = unary[0].expand(len(column_offsets), -1, -1)
    for row in range(1, len(unary)):
        before = torch.stack(
            [torch.roll(path, column_offset, dims=1) for path, column_offset in zip(out, column_offsets, strict=True)]
        )
        path_cost = (before[:, None] + transitions[row]).amin(dim=2)
        path_cost -= path_cost.amin(dim=1, keepdim=True)
        for path, column_offset in zip(path_cost, column_offsets, strict=True):
            if column_offset:  # no path comes from beyond the border
                path[:, 0 if column_offset > 0 else -1] = 0.0
        out = unary[row] + path_cost
        total[row] = out.sum(dim=0)
    return total


def solve_labeling(
    planar_view: PlanarView,
    sources: list[PlanarView],
    planes: PlaneSet,
    max_depth: float,
    bounds: PlaneSet,
    slack: float,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Plane index of every pixel (-1: none), and the margin of its cost to the next best.

    No pixel gets a plane farther than ``max_depth``, or more than ``slack`` behind one of the planes ``bounds``.
    """
    w, _, _ = plane_fields(planes, planar_view.view)
    depth = 1.0 / w.clamp(min=1e-9)
    unary = unary_costs(
        planar_view,
        sources,
        w,
        (w > 0) & (depth < max_depth) & in_front_of_bounds(bounds, slack, planar_view.view, depth),
    )
    depth = torch.where(w > 0, 1.0 / w.clamp(min=1e-9), torch.full_like(w, 1e6))
    total = aggregate_costs(unary, depth, smoothness_costs(planar_view.view.gray))
    lowest_two = total.topk(2, dim=0, largest=False)
    best = lowest_two.indices[0]
    return torch.where(best == len(w), -1, best), lowest_two.values[1] - lowest_two.values[0]
