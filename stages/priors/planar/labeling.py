"""Which plane of the scene each pixel of a photo shows, also where nothing can be matched.

Manhattan-world stereo (Furukawa et al. 2009): planes are hypotheses, every pixel takes one or none, by what is known of
its depth, by what other photos see through, by colours, and by its neighbours; planes meet where they intersect, or at
edges of the picture. The energy is lowered by semi-global aggregation (Hirschmüller 2008), with penalties between all
pairs of planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from quoin.pipeline.geometry.planes import PlaneSet
from quoin.stages.priors.stereo.views import StereoView, ray_grid, relative_poses

NO_PLANE_COST = 0.7  # of no plane, where a wrong one may cost several times that
DEPTH_TOLERANCE_SHARE, DEPTH_COST = 0.02, 2.0  # difference from the known depth that costs fully
VIOLATION_SHARE, VIOLATION_COST = 0.03, 0.5  # a photo sees through, to what lies farther by this share
SAME_DEPTH_SHARE, SAME_DEPTH_GAIN = 0.015, 0.25  # or has its surface within this share of the plane
MAX_VOTES = 3
MAX_COLOR_DIFFERENCE, COLOR_COST, N_BEST_COLORS = 0.12, 1.0, 3  # mean difference of the best photos' colours, of 1
UNSEEN_COLOR_SHARE = 0.3  # share of that for a photo that does not see the point: it says nothing
SMOOTHNESS_COST = 2.0  # of changing planes between neighbours where the picture is smooth and the planes lie apart
SMOOTHNESS_DEPTH_SHARE = 0.02  # share of the depth by which planes lie apart
CREASE_SHARE = 0.5  # of the cost of turning, where the two planes meet
EDGE_SIGMA_GRAY, MIN_EDGE_SHARE = 0.03, 0.15  # gradient of gray that makes it an edge; what a change costs there


class PlanarView(NamedTuple):
    """A photo for this: its view, colours [3, h, w] of 1 with the photo's exposure taken out, and depth [h, w] or 0."""

    view: StereoView
    color: Tensor
    depth: Tensor


def plane_fields(
    planes: PlaneSet, view: StereoView
) -> tuple[Float[Tensor, "k h w"], Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Inverse depths w of the planes in a photo (<= 0: not seen, or from the wrong side), and their slopes a, b."""
    normal = torch.as_tensor(planes.normal, dtype=view.gray.dtype, device=view.gray.device)
    offset = torch.as_tensor(planes.offset, dtype=view.gray.dtype, device=view.gray.device)
    there = normal @ view.cam_from_world[:, :3].T
    height = offset + there @ view.cam_from_world[:, 3]  # minus the camera's height above the plane
    safe = torch.where(height < 0, height, torch.full_like(height, -1e9))
    w = torch.einsum("kc,chw->khw", there, ray_grid(view)) / safe[:, None, None]
    w = torch.where((height < 0)[:, None, None], w, -torch.ones_like(w))
    return w, there[:, 0] / view.intrinsics[0] / safe, there[:, 1] / view.intrinsics[1] / safe


def in_front_of_bounds(
    bounds: PlaneSet, slack: float, view: StereoView, depth: Float[Tensor, "k h w"]
) -> Bool[Tensor, "k h w"]:
    """Which points of a photo, at these depths, do not lie farther than ``slack`` behind any of the ``bounds``."""
    in_front = torch.ones_like(depth, dtype=torch.bool)
    rays = ray_grid(view)
    for normal, offset in zip(bounds.normal, bounds.offset, strict=True):
        there = torch.as_tensor(normal, dtype=depth.dtype, device=depth.device) @ view.cam_from_world[:, :3].T
        beyond = float(offset) + there @ view.cam_from_world[:, 3]
        if beyond < 0:  # the photo is taken from before it
            in_front &= torch.einsum("c,chw->hw", there, rays) * depth - beyond > -slack
    return in_front


def unary_costs(
    planar_view: PlanarView, sources: list[PlanarView], w: Float[Tensor, "k h w"], possible: Bool[Tensor, "k h w"]
) -> Float[Tensor, "k+1 h w"]:
    """What each plane (inverse depths ``w``) costs each pixel, and at last what none costs."""
    depth = 1.0 / w.clamp(min=1e-9)
    total = torch.zeros_like(w)
    own = planar_view.depth[None]
    off = ((depth / own.clamp(min=1e-9) - 1.0).abs() / DEPTH_TOLERANCE_SHARE).clamp(max=1.0)
    total += torch.where(own > 0, DEPTH_COST * off, torch.zeros_like(off))
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
        there = source.depth.reshape(-1)[at]
        has_depth = inside & (there > 0)
        violations += (has_depth & (there > (1.0 + VIOLATION_SHARE) * z)).float()
        same += (has_depth & ((there / z - 1.0).abs() < SAME_DEPTH_SHARE)).float()
        grid = torch.stack([x / width * 2.0 - 1.0, y / height * 2.0 - 1.0], dim=-1).reshape(1, -1, w.shape[2], 2)
        sampled = functional.grid_sample(source.color[None], grid, align_corners=False, padding_mode="border")
        difference = (sampled[0].view(3, *w.shape) - planar_view.color[:, None]).abs().mean(dim=0)
        hidden = has_depth & (there < (1.0 - VIOLATION_SHARE) * z)
        color_costs.append(torch.where(inside & ~hidden, difference.clamp(max=MAX_COLOR_DIFFERENCE), torch.nan))
    total += VIOLATION_COST * violations.clamp(max=MAX_VOTES) - SAME_DEPTH_GAIN * same.clamp(max=MAX_VOTES)
    if color_costs:
        best = (
            torch.stack(color_costs)
            .nan_to_num(nan=UNSEEN_COLOR_SHARE * MAX_COLOR_DIFFERENCE)
            .sort(dim=0)
            .values[:N_BEST_COLORS]
            .mean(dim=0)
        )
        best = functional.avg_pool2d(best[None], 5, 1, 2, count_include_pad=False)[0]
        total += COLOR_COST * best / MAX_COLOR_DIFFERENCE
    total = torch.where(possible, total, torch.full_like(total, 1e3))
    return torch.cat([total, torch.full_like(total[:1], NO_PLANE_COST)])


def smoothness_costs(gray: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """What a change of planes costs at each pixel: little at edges of the picture."""
    padded = functional.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2.0
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2.0
    edge = torch.sqrt(dx * dx + dy * dy)
    return SMOOTHNESS_COST * (MIN_EDGE_SHARE + (1.0 - MIN_EDGE_SHARE) * torch.exp(-((edge / EDGE_SIGMA_GRAY) ** 2)))


def aggregate_costs(
    unary: Float[Tensor, "l h w"], depth: Float[Tensor, "k h w"], smoothness: Float[Tensor, "h w"]
) -> Float[Tensor, "l h w"]:
    """Costs with those of the best way to each pixel along eight directions, in the mean; l = k + 1."""
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
    """What it costs to come to a pixel with one plane (second) from a neighbour with another (third); l = k + 1."""
    z = depth.transpose(0, 1)
    apart = (z[:, :, None] - z[:, None]).abs_() / torch.maximum(z[:, :, None], z[:, None]).clamp_(min=1e-9)
    n_planes, (height, width) = len(depth), smoothness.shape
    pair = smoothness.new_ones(height, n_planes + 1, n_planes + 1, width)
    pair[:, :n_planes, :n_planes] = apart.div_(SMOOTHNESS_DEPTH_SHARE).clamp_(CREASE_SHARE, 1.0)
    pair.diagonal(dim1=1, dim2=2).zero_()
    return pair.mul_(smoothness[:, None, None])


def _along_rows(
    unary: Float[Tensor, "h l w"], transitions: Float[Tensor, "h l l w"], column_offsets: Sequence[int]
) -> Float[Tensor, "h l w"]:
    """From the first row to the last, the sum over ``column_offsets`` (-1, 0, 1).

    A pixel comes from the one above it, so many columns to the left.
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
            if column_offset:  # nothing comes from beyond the border
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
    """The plane of every pixel (index, -1: none), and by how much its cost is below that of the next best.

    No pixel shows what is farther than ``max_depth``, or by more than ``slack`` behind one of the ``bounds``.
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
