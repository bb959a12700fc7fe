"""Dense stereo by warped sweeps: a photo's depth map from its neighbours, in plain torch on any device.

A hypothesis is a whole depth map. Each source photo is warped onto the reference through it, compared by windowed NCC,
and every pixel keeps its best. The first sweep goes over fronto-parallel planes in inverse depth and over level planes;
later ones over small offsets of the smoothed map so far, which lets the window follow slanted surfaces (as cascaded
cost volumes do, Gu et al. 2020). The best two sources count, so that one that is occluded does not (COLMAP, Schönberger
et al. 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FAIL = 2.0  # cost where a source sees nothing


class View(NamedTuple):
    """A photo at one pyramid level: gray [h, w] in [0, 1], focal and centre [4] of that level, pose [3, 4]."""

    gray: Tensor
    intrinsics: Tensor
    cam_from_world: Tensor


def relative_poses(reference: View, sources: list[View]) -> tuple[Float[Tensor, "s 3 3"], Float[Tensor, "s 3"]]:
    """Rotation and translation from the reference camera to each source camera."""
    r0, t0 = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3]
    rotation = torch.stack([s.cam_from_world[:, :3] @ r0.T for s in sources])
    translation = torch.stack([s.cam_from_world[:, 3] - rotation[i] @ t0 for i, s in enumerate(sources)])
    return rotation, translation


def ray_grid(view: View) -> Float[Tensor, "3 pixels"]:
    """Directions with depth 1 through all pixel centres, row by row."""
    h, w = view.gray.shape
    fx, fy, cx, cy = view.intrinsics
    y, x = torch.meshgrid(
        torch.arange(h, device=view.gray.device) + 0.5, torch.arange(w, device=view.gray.device) + 0.5, indexing="ij"
    )
    return torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)]).reshape(3, -1)


def box_mean(image: Float[Tensor, "n h w"], window: int) -> Float[Tensor, "n h w"]:
    """Mean over a window, by rows then columns; the border counts what it has."""
    pad, out = window // 2, image[:, None]
    out = functional.avg_pool2d(out, (1, window), stride=1, padding=(0, pad), count_include_pad=False)
    return functional.avg_pool2d(out, (window, 1), stride=1, padding=(pad, 0), count_include_pad=False)[:, 0]


class Sweep:
    """Compares one reference with its sources under depth hypotheses."""

    def __init__(self, reference: View, sources: list[View], window: int) -> None:
        self.reference, self.window = reference, window
        self.shape = reference.gray.shape
        rotation, translation = relative_poses(reference, sources)
        self.turned = rotation @ ray_grid(reference)  # [s, 3, pixels]
        self.shift = translation[:, :, None]
        self.k = torch.stack([s.intrinsics for s in sources])
        heights, widths = [s.gray.shape[0] for s in sources], [s.gray.shape[1] for s in sources]
        self.canvas = torch.zeros(len(sources), 1, max(heights), max(widths), device=reference.gray.device)
        for i, source in enumerate(sources):
            self.canvas[i, 0, : heights[i], : widths[i]] = source.gray
        self.size = torch.tensor([widths, heights], device=reference.gray.device, dtype=torch.float32).T[:, :, None]
        gray = reference.gray[None]
        self.mean = box_mean(gray, window)
        self.variance = box_mean(gray * gray, window) - self.mean**2
        self.baseline = -torch.einsum("sji,sj->si", rotation, translation).norm(dim=1)

    def cost(self, depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Mean of the two smallest 1 − NCC over the sources, per pixel."""
        points = self.turned * depth.reshape(1, 1, -1) + self.shift
        z = points[:, 2:].clamp(min=1e-6)
        xy = points[:, :2] / z * self.k[:, :2, None] + self.k[:, 2:, None]
        inside = ((xy > 0.5) & (xy < self.size - 0.5)).all(dim=1) & (points[:, 2] > 0)
        span = torch.tensor(self.canvas.shape[:1:-1], device=xy.device, dtype=xy.dtype)[None, :, None]
        grid = (xy / span * 2.0 - 1.0).transpose(1, 2).reshape(len(xy), *self.shape, 2)
        warped = functional.grid_sample(self.canvas, grid, align_corners=False)[:, 0]
        mean = box_mean(warped, self.window)
        variance = box_mean(warped * warped, self.window) - mean**2
        cross = box_mean(warped * self.reference.gray, self.window) - mean * self.mean
        ncc = cross / torch.sqrt(variance.clamp(min=0.0) * self.variance + 1e-7)
        each = torch.where(inside.view_as(ncc), 1.0 - ncc, FAIL)
        first, second = each[0], torch.full_like(each[0], FAIL)
        for other in each[1:]:
            second = torch.minimum(second, torch.maximum(first, other))
            first = torch.minimum(first, other)
        return 0.5 * (first + second)

    def inverse_depth_step(self, pixels: float) -> float:
        """Change of inverse depth that moves a point by about ``pixels`` in the sources."""
        return pixels / float(self.k[:, 0].mean() * self.baseline.abs().median().clamp(min=1e-9))


def best_of(costs: Float[Tensor, "k h w"], inverse: Float[Tensor, "k h w"]) -> tuple[Tensor, Tensor]:
    """Inverse depth of the least cost, refined by a parabola through its neighbours, and that cost."""
    k = len(costs)
    cost, index = costs.min(dim=0)
    middle = index.clamp(1, max(k - 2, 1))
    if k < 3:
        return inverse.gather(0, index[None])[0], cost
    a, b, c = (costs.gather(0, (middle + o)[None])[0] for o in (-1, 0, 1))
    curve = a - 2.0 * b + c
    offset = torch.where((curve > 1e-6) & (middle == index), 0.5 * (a - c) / curve.clamp(min=1e-6), torch.zeros_like(a))
    offset = offset.clamp(-0.5, 0.5)
    at = inverse.gather(0, index[None])[0]
    step = inverse.gather(0, (middle + 1)[None])[0] - inverse.gather(0, middle[None])[0]
    return at + offset * step, cost


def smooth(
    inverse: Float[Tensor, "h w"], cost: Float[Tensor, "h w"], limit: float, rounds: int
) -> Float[Tensor, "h w"]:
    """Median over 5×5 of the pixels below ``limit``; holes are filled from their rim, ring by ring."""
    known = torch.where(cost < limit, inverse, torch.nan)
    for _ in range(rounds):
        padded = functional.pad(known[None, None], (2, 2, 2, 2), mode="replicate")
        known = padded.unfold(2, 5, 1).unfold(3, 5, 1).reshape(*inverse.shape, 25).nanmedian(dim=-1).values
        if not bool(torch.isnan(known).any()):
            break
    return torch.where(torch.isnan(known), inverse, known)


TILT_DEG = 50.0  # of the slanted plane families against the view


def plane_normals(view: View, up: Float[Tensor, "3"]) -> Float[Tensor, "6 3"]:
    """Normals of the plane families, in the camera frame: facing it, tilted four ways, and level in the world."""
    s, c = math.sin(math.radians(TILT_DEG)), math.cos(math.radians(TILT_DEG))
    tilted = [[0.0, 0.0, -1.0], [s, 0.0, -c], [-s, 0.0, -c], [0.0, s, -c], [0.0, -s, -c]]
    return torch.cat([torch.tensor(tilted, device=up.device), (view.cam_from_world[:, :3] @ up)[None]])


def plane_family(
    view: View, normal: Float[Tensor, "3"], inverse_range: tuple[float, float], step: float, limit: int
) -> Float[Tensor, "k h w"]:
    """Inverse depths of parallel planes ``normal · x = −d``, neighbours about ``step`` apart in a pixel.

    At most ``limit`` planes, together covering ``inverse_range`` wherever the family can be seen; 0 where it cannot.
    """
    facing = -(normal @ ray_grid(view)).reshape(view.gray.shape)
    largest = float(facing.max())
    if largest < 0.05:
        facing, largest = -facing, float(-facing.min())  # seen from the other side
    usual = max(float(facing.clamp(min=0.0).median()), 0.25 * largest)
    low, high = inverse_range[0] / largest, inverse_range[1] / usual
    count = int(min(max((high - low) * usual / step, 16), limit))
    return torch.linspace(low, high, count, device=facing.device)[:, None, None] * facing.clamp(min=0.0)


def first_depth(
    sweep: Sweep, view: View, inverse_range: tuple[float, float], up: Float[Tensor, "3"]
) -> tuple[Tensor, Tensor]:
    """Inverse depth [h, w] and cost of the best plane of all families."""
    low, high = inverse_range
    best, cost = torch.full(sweep.shape, low, device=up.device), torch.full(sweep.shape, FAIL, device=up.device)
    for normal in plane_normals(view, up):
        family = plane_family(view, normal, inverse_range, sweep.inverse_depth_step(1.6), limit=56)
        costs = [
            torch.where((plane >= low) & (plane <= high), sweep.cost(1.0 / plane.clamp(min=low)), FAIL)
            for plane in family
        ]
        inverse, found = best_of(torch.stack(costs), family)
        best, cost = torch.where(found < cost, inverse, best), torch.minimum(found, cost)
    return best, cost


def depth_map(
    levels: list[tuple[View, list[View]]],
    inverse_range: tuple[float, float],
    up: Float[Tensor, "3"],
    window: int,
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Depth [h, w] and its cost at the finest of ``levels`` (coarsest first; each the reference and its sources)."""
    reference, sources = levels[0]
    sweep = Sweep(reference, sources, window)
    best, cost = first_depth(sweep, reference, inverse_range, up)
    low, high = inverse_range
    for number, (reference, sources) in enumerate(levels):
        base = smooth(best.clamp(low, high), cost, 0.5, rounds=8)
        if number:
            base = functional.interpolate(base[None, None], reference.gray.shape, mode="bilinear", align_corners=False)[
                0, 0
            ]
            sweep = Sweep(reference, sources, window)
        best, cost = refine(sweep, base, inverse_range)
    return 1.0 / best.clamp(min=0.25 * low), cost


def refine(sweep: Sweep, base: Float[Tensor, "h w"], inverse_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Inverse depth [h, w] and cost after two sweeps over small offsets of the map ``base``, smoothed between them."""
    for pixels, reach in ((0.8, 5), (0.4, 3)):
        offsets = torch.arange(-reach, reach + 1, device=base.device) * sweep.inverse_depth_step(pixels)
        inverse = (base + offsets[:, None, None]).clamp(0.5 * inverse_range[0], 2.0 * inverse_range[1])
        best, cost = best_of(torch.stack([sweep.cost(1.0 / plane) for plane in inverse]), inverse)
        base = smooth(best, cost, 0.5, rounds=4)
    return best, cost


def propagated(
    reference: View,
    sources: list[View],
    points_world: Float[Tensor, "n 3"],
    depth: Float[Tensor, "h w"],
    cost: Float[Tensor, "h w"],
    inverse_range: tuple[float, float],
    window: int,
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """``depth`` and ``cost``, improved where refining what other photos believe (``points_world``) costs less."""
    seen = splat(reference, points_world)
    known = torch.where(seen > 0, 0.0, FAIL)
    base = smooth(1.0 / torch.where(seen > 0, seen, depth.clamp(min=0.5 / inverse_range[1])), known, 0.5, rounds=6)
    inverse, found = refine(Sweep(reference, sources, window), base, inverse_range)
    better = found < cost
    return torch.where(better, 1.0 / inverse.clamp(min=0.25 * inverse_range[0]), depth), torch.minimum(found, cost)


def splat(view: View, points_world: Float[Tensor, "n 3"]) -> Float[Tensor, "h w"]:
    """Least depth of the points that fall into each pixel; 0 where none does."""
    h, w = view.gray.shape
    camera = points_world @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    k, z = view.intrinsics, camera[:, 2]
    column, row = ((camera[:, :2] / z.clamp(min=1e-6)[:, None]) * k[:2] + k[2:]).floor().unbind(1)
    inside = (z > 1e-6) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
    index = (row[inside] * w + column[inside]).long()
    nearest = torch.full((h * w,), torch.inf, device=z.device).scatter_reduce(0, index, z[inside], "amin")
    return torch.where(torch.isfinite(nearest), nearest, 0.0).view(h, w)
