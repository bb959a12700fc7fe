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
from quoin.stages.priors.stereo.views import View, ray_grid, relative_poses

NONE_COST = 0.7  # of no plane, where a wrong one may cost several times that
DEPTH_SHARE, DEPTH_COST = 0.02, 2.0  # difference from the known depth that costs fully
BEHIND, THROUGH_COST = 0.03, 0.5  # a photo sees through, to what lies farther by this share
SAME, SAME_GAIN = 0.015, 0.25  # or has its surface within this share of the plane
MOST_VOTES = 3
COLOUR_CUT, COLOUR_COST, COLOUR_BEST = 0.12, 1.0, 3  # mean difference of the best photos' colours, of 1
UNSEEN = 0.3  # share of that for a photo that does not see the point: it says nothing
TURN_COST = 2.0  # of changing planes between neighbours where the picture is smooth and the planes lie apart
TURN_SHARE = 0.02  # share of the depth by which planes lie apart
CREASE_SHARE = 0.5  # of the cost of turning, where the two planes meet
EDGE_SIGMA, EDGE_LEAST = 0.03, 0.15  # gradient of gray that makes it an edge; what a change costs there


class Known(NamedTuple):
    """A photo for this: its view, colours [3, h, w] of 1 with the photo's exposure taken out, and depth [h, w] or 0."""

    view: View
    colour: Tensor
    depth: Tensor


def plane_fields(planes: PlaneSet, view: View) -> tuple[Float[Tensor, "k h w"], Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Inverse depths w of the planes in a photo (<= 0: not seen, or from the wrong side), and their slopes a, b."""
    normal = torch.as_tensor(planes.normal, dtype=view.gray.dtype, device=view.gray.device)
    offset = torch.as_tensor(planes.offset, dtype=view.gray.dtype, device=view.gray.device)
    there = normal @ view.cam_from_world[:, :3].T
    height = offset + there @ view.cam_from_world[:, 3]  # minus the camera's height above the plane
    safe = torch.where(height < 0, height, torch.full_like(height, -1e9))
    w = torch.einsum("kc,chw->khw", there, ray_grid(view)) / safe[:, None, None]
    w = torch.where((height < 0)[:, None, None], w, -torch.ones_like(w))
    return w, there[:, 0] / view.intrinsics[0] / safe, there[:, 1] / view.intrinsics[1] / safe


def within(bounds: PlaneSet, slack: float, view: View, depth: Float[Tensor, "k h w"]) -> Bool[Tensor, "k h w"]:
    """Which points of a photo, at these depths, do not lie farther than ``slack`` behind any of the ``bounds``."""
    found = torch.ones_like(depth, dtype=torch.bool)
    rays = ray_grid(view)
    for normal, offset in zip(bounds.normal, bounds.offset, strict=True):
        there = torch.as_tensor(normal, dtype=depth.dtype, device=depth.device) @ view.cam_from_world[:, :3].T
        beyond = float(offset) + there @ view.cam_from_world[:, 3]
        if beyond < 0:  # the photo is taken from before it
            found &= torch.einsum("c,chw->hw", there, rays) * depth - beyond > -slack
    return found


def costs(
    known: Known, others: list[Known], w: Float[Tensor, "k h w"], possible: Bool[Tensor, "k h w"]
) -> Float[Tensor, "k+1 h w"]:
    """What each plane (inverse depths ``w``) costs each pixel, and at last what none costs."""
    depth = 1.0 / w.clamp(min=1e-9)
    total = torch.zeros_like(w)
    own = known.depth[None]
    off = ((depth / own.clamp(min=1e-9) - 1.0).abs() / DEPTH_SHARE).clamp(max=1.0)
    total += torch.where(own > 0, DEPTH_COST * off, torch.zeros_like(off))
    through, same, colours = torch.zeros_like(w), torch.zeros_like(w), []
    rays = ray_grid(known.view)
    for other in others:
        (rotation,), (translation,) = relative_poses(known.view, [other.view])
        point = torch.einsum("dc,chw->dhw", rotation, rays)[:, None] * depth + translation[:, None, None, None]
        z = point[2].clamp(min=1e-6)
        k, (height, width) = other.view.intrinsics, other.depth.shape
        x, y = point[0] / z * k[0] + k[2], point[1] / z * k[1] + k[3]
        inside = possible & (point[2] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        at = y.long().clamp(0, height - 1) * width + x.long().clamp(0, width - 1)
        there = other.depth.reshape(-1)[at]
        says = inside & (there > 0)
        through += (says & (there > (1.0 + BEHIND) * z)).float()
        same += (says & ((there / z - 1.0).abs() < SAME)).float()
        grid = torch.stack([x / width * 2.0 - 1.0, y / height * 2.0 - 1.0], dim=-1).reshape(1, -1, w.shape[2], 2)
        seen = functional.grid_sample(other.colour[None], grid, align_corners=False, padding_mode="border")
        difference = (seen[0].view(3, *w.shape) - known.colour[:, None]).abs().mean(dim=0)
        hidden = says & (there < (1.0 - BEHIND) * z)
        colours.append(torch.where(inside & ~hidden, difference.clamp(max=COLOUR_CUT), torch.nan))
    total += THROUGH_COST * through.clamp(max=MOST_VOTES) - SAME_GAIN * same.clamp(max=MOST_VOTES)
    if colours:
        best = torch.stack(colours).nan_to_num(nan=UNSEEN * COLOUR_CUT).sort(dim=0).values[:COLOUR_BEST].mean(dim=0)
        best = functional.avg_pool2d(best[None], 5, 1, 2, count_include_pad=False)[0]
        total += COLOUR_COST * best / COLOUR_CUT
    total = torch.where(possible, total, torch.full_like(total, 1e3))
    return torch.cat([total, torch.full_like(total[:1], NONE_COST)])


def turn_costs(gray: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """What a change of planes costs at each pixel: little at edges of the picture."""
    padded = functional.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2.0
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2.0
    edge = torch.sqrt(dx * dx + dy * dy)
    return TURN_COST * (EDGE_LEAST + (1.0 - EDGE_LEAST) * torch.exp(-((edge / EDGE_SIGMA) ** 2)))


def aggregate(
    unary: Float[Tensor, "l h w"], depth: Float[Tensor, "k h w"], turn: Float[Tensor, "h w"]
) -> Float[Tensor, "l h w"]:
    """Costs with those of the best way to each pixel along eight directions, in the mean; l = k + 1."""
    total = torch.zeros_like(unary)
    for transposed, asides in ((False, (0, 1, -1)), (True, (0,))):
        own, z, t = (x.transpose(-1, -2) if transposed else x for x in (unary, depth, turn))
        rows, turns = own.transpose(0, 1).contiguous(), turns_between(z, t)
        ways = _along_rows(rows, turns, asides) + _along_rows(rows.flip(0), turns.flip(0), asides).flip(0)
        ways = ways.transpose(0, 1)
        total += ways.transpose(-1, -2) if transposed else ways
    return total / 8.0


def turns_between(depth: Float[Tensor, "k h w"], turn: Float[Tensor, "h w"]) -> Float[Tensor, "h l l w"]:
    """What it costs to come to a pixel with one plane (second) from a neighbour with another (third); l = k + 1."""
    z = depth.transpose(0, 1)
    apart = (z[:, :, None] - z[:, None]).abs_() / torch.maximum(z[:, :, None], z[:, None]).clamp_(min=1e-9)
    n_planes, (height, width) = len(depth), turn.shape
    pair = turn.new_ones(height, n_planes + 1, n_planes + 1, width)
    pair[:, :n_planes, :n_planes] = apart.div_(TURN_SHARE).clamp_(CREASE_SHARE, 1.0)
    pair.diagonal(dim1=1, dim2=2).zero_()
    return pair.mul_(turn[:, None, None])


def _along_rows(
    unary: Float[Tensor, "h l w"], turns: Float[Tensor, "h l l w"], asides: Sequence[int]
) -> Float[Tensor, "h l w"]:
    """From the first row to the last, the sum over ``asides`` (-1, 0, 1).

    A pixel comes from the one above it, so many columns to the left.
    """
    total = torch.empty_like(unary)
    total[0] = len(asides) * unary[0]
    out = unary[0].expand(len(asides), -1, -1)
    for row in range(1, len(unary)):
        before = torch.stack([torch.roll(one, aside, dims=1) for one, aside in zip(out, asides, strict=True)])
        way = (before[:, None] + turns[row]).amin(dim=2)
        way -= way.amin(dim=1, keepdim=True)
        for one, aside in zip(way, asides, strict=True):
            if aside:  # nothing comes from beyond the border
                one[:, 0 if aside > 0 else -1] = 0.0
        out = unary[row] + way
        total[row] = out.sum(dim=0)
    return total


def layout(
    known: Known, others: list[Known], planes: PlaneSet, farthest: float, bounds: PlaneSet, slack: float
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w"]]:
    """The plane of every pixel (index, -1: none), and by how much its cost is below that of the next best.

    No pixel shows what is farther than ``farthest``, or by more than ``slack`` behind one of the ``bounds``.
    """
    w, _, _ = plane_fields(planes, known.view)
    depth = 1.0 / w.clamp(min=1e-9)
    unary = costs(known, others, w, (w > 0) & (depth < farthest) & within(bounds, slack, known.view, depth))
    depth = torch.where(w > 0, 1.0 / w.clamp(min=1e-9), torch.full_like(w, 1e6))
    total = aggregate(unary, depth, turn_costs(known.view.gray))
    two = total.topk(2, dim=0, largest=False)
    best = two.indices[0]
    return torch.where(best == len(w), -1, best), two.values[1] - two.values[0]
