"""Plane hypotheses: a plane for every pixel of a photo, and its matching cost in other photos.

A plane is (w, a, b): the inverse depth w at the pixel center, and its change per pixel to the right and downwards.
On a plane inverse depth is affine in the pixel, so that extending a neighbor's plane is an addition, and the homography
to another photo is linear in (w, a, b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from quoin.stages.priors.stereo.views import StereoView, ray_grid, relative_poses

INVALID_COST = 2.0  # where no source sees the pixel: the largest value of 1 − NCC
SLOPE_REACH_PX = 2  # to either side, of the difference that a slope is taken from
MAX_BEND_SHARE = 0.02  # of inverse depth, between a pixel and the mean of both sides on the same surface


@dataclass(frozen=True)
class MatchingParams:
    """Tuned numbers of matching a pixel's window (bilateral weights as COLMAP's, Schönberger et al. 2016)."""

    window_taps: int = 5  # samples along each side of a window
    tap_spacing_px: int = 2  # between neighboring samples of a window
    bilateral_sigma: float = 0.1  # gray in [0, 1], of the window's bilateral weights
    single_view_penalty: float = 0.1  # added to the best source's cost when no second source confirms it
    min_variance_product: float = 1e-8  # of two windows' gray variances; less has no texture to match, only noise
    min_facing_cos: float = 0.12  # between a plane's normal and the ray (83 degrees): more slanted is refused


MATCHING_PARAMS = MatchingParams()


class PlaneHypotheses(NamedTuple):
    """A plane for each pixel of one photo at one pyramid level, as fields [h, w]; w = 0: no plane."""

    w: Tensor
    a: Tensor
    b: Tensor

    def inverse_depth_at(self, dx: Tensor | float, dy: Tensor | float) -> Tensor:
        """Inverse depth at an offset of ``dx``, ``dy`` pixels from the pixel center."""
        return self.w + self.a * dx + self.b * dy


class MatchingWindows(NamedTuple):
    """Windows of the reference and images of its sources; tensors only, so that one compiled graph serves all."""

    xy: Tensor  # [2, pixels]
    weight: Tensor  # [taps, pixels] bilateral weights, their sum 1
    centered: Tensor  # [taps, pixels] weight · (gray − mean)
    variance: Tensor  # [pixels]
    offset: Tensor  # [taps, 2] pixels
    images: Tensor  # [sources, H, W] int32: four neighboring grays, a byte each (pack_bilinear_taps)
    size: Tensor  # [sources, 2] width and height of each source within ``images``
    infinite_homography: (
        Tensor  # [sources, 3, 3] from (x, y, 1) of the reference to homogeneous pixels of the source at infinity
    )
    epipole: Tensor  # [sources, 3] to add per unit of inverse depth


def make_windows(reference: StereoView, sources: list[StereoView], n_sources: int) -> MatchingWindows:
    """Windows around all pixels of the reference, and the images they are compared with.

    ``n_sources`` fixes the shapes: missing sources are images of size 0, which see nothing.
    """
    gray, device = reference.gray, reference.gray.device
    h, w = gray.shape
    reach = MATCHING_PARAMS.window_taps // 2 * MATCHING_PARAMS.tap_spacing_px
    side = torch.arange(-reach, reach + 1, MATCHING_PARAMS.tap_spacing_px, device=device)
    offset = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
    padded = functional.pad(gray[None, None], (reach,) * 4, mode="replicate")[0, 0]
    taps = torch.stack(
        [padded[reach + dy : reach + dy + h, reach + dx : reach + dx + w].reshape(-1) for dx, dy in offset.tolist()]
    )
    weight = torch.exp(
        -((taps - gray.reshape(1, -1)) ** 2) / (2.0 * MATCHING_PARAMS.bilateral_sigma**2)
        - (offset**2).sum(dim=1, keepdim=True) / (2.0 * reach**2)
    )
    weight = weight / weight.sum(dim=0)
    difference = taps - (weight * taps).sum(dim=0)
    y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
    heights, widths = [s.gray.shape[0] for s in sources], [s.gray.shape[1] for s in sources]
    images = torch.zeros(n_sources, max(heights), max(widths), device=device, dtype=torch.int32)
    size = torch.zeros(n_sources, 2, device=device)
    infinite_homography, epipole = torch.zeros(n_sources, 3, 3, device=device), torch.zeros(n_sources, 3, device=device)
    infinite_homography[:, 2, 2] = 1.0
    rotation, translation = relative_poses(reference, sources)
    to_ray = torch.linalg.inv(_intrinsic_matrix(reference.intrinsics))
    for i, source in enumerate(sources):
        images[i, : heights[i], : widths[i]] = pack_bilinear_taps(source.gray)
        size[i] = torch.tensor([widths[i], heights[i]])
        k = _intrinsic_matrix(source.intrinsics)
        infinite_homography[i], epipole[i] = k @ rotation[i] @ to_ray, k @ translation[i]
    return MatchingWindows(
        torch.stack([x, y]).reshape(2, -1),
        weight,
        weight * difference,
        (weight * difference**2).sum(dim=0),
        offset.float(),
        images,
        size,
        infinite_homography,
        epipole,
    )


def pack_bilinear_taps(gray: Float[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    """Gray of each pixel and of its right, lower and lower right neighbors, a byte each: one read instead of four."""
    level = (functional.pad(gray[None, None], (0, 1, 0, 1), mode="replicate")[0, 0] * 255.0).round().long()
    four = level[:-1, :-1] | level[:-1, 1:] << 8 | level[1:, :-1] << 16 | level[1:, 1:] << 24
    return torch.where(four >= 1 << 31, four - (1 << 32), four).int()


def local_contrast(gray: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Standard deviation of gray over 5 × 5 pixels; a matching window is larger and may match by what lies beside it.

    The twin of ``pipeline.imaging.filters.local_contrast``; at the border it counts the pixels inside only.
    """
    mean, square = functional.avg_pool2d(torch.stack([gray, gray * gray])[None], 5, 1, 2, count_include_pad=False)[0]
    return (square - mean * mean).clamp(min=0.0).sqrt()


def plane_cost(planes: PlaneHypotheses, windows: MatchingWindows) -> Float[Tensor, "pixels"]:
    """Matching cost of each pixel's plane: mean of the two smallest 1 − NCC over the sources.

    Where it is less, the smallest plus ``single_view_penalty`` (NCC and weights: Schönberger et al. 2016). The fields
    of ``planes`` are flat, for the pixels of ``windows``.
    """
    w, a, b = planes
    infinite_homography, epipole, size = (
        windows.infinite_homography[..., None],
        windows.epipole[..., None],
        windows.size[..., None],
    )
    middle = (
        infinite_homography[:, :, 0] * windows.xy[0]
        + infinite_homography[:, :, 1] * windows.xy[1]
        + infinite_homography[:, :, 2]
        + epipole * w
    )
    right, down = infinite_homography[:, :, 0] + epipole * a, infinite_homography[:, :, 1] + epipole * b
    dx, dy = windows.offset[:, :1], windows.offset[:, 1:]
    x, y, z = (middle[:, None, i] + dx * right[:, None, i] + dy * down[:, None, i] for i in range(3))
    z = z.clamp(min=1e-6)
    height, width = windows.images.shape[1:]
    limit = size[:, None] - 1.001
    u = torch.minimum(x / z - 0.5, limit[:, :, 0]).clamp(min=0.0)
    v = torch.minimum(y / z - 0.5, limit[:, :, 1]).clamp(min=0.0)
    column, row = u.to(torch.int32), v.to(torch.int32)
    u, v = u - column, v - row
    first = torch.arange(len(size), dtype=torch.int32, device=w.device)[:, None, None] * (height * width)
    four = windows.images.view(-1)[first + row * width + column]
    near, far = (four & 255).float(), ((four >> 8) & 255).float()
    near_below, far_below = ((four >> 16) & 255).float(), ((four >> 24) & 255).float()
    sampled = torch.lerp(torch.lerp(near, far, u), torch.lerp(near_below, far_below, u), v) / 255.0
    mean = (windows.weight * sampled).sum(dim=1)
    variance = ((windows.weight * sampled * sampled).sum(dim=1) - mean * mean).clamp(min=0.0)
    ncc = (windows.centered * sampled).sum(dim=1) / torch.sqrt(
        variance * windows.variance + MATCHING_PARAMS.min_variance_product
    )
    depth = middle[:, 2].clamp(min=1e-6)
    cx, cy = middle[:, 0] / depth, middle[:, 1] / depth
    inside = (cx > 0.5) & (cx < size[:, 0] - 0.5) & (cy > 0.5) & (cy < size[:, 1] - 0.5) & (middle[:, 2] > 0)
    each = torch.where(inside, 1.0 - ncc, INVALID_COST)
    best, second = each[0], torch.full_like(each[0], INVALID_COST)
    for cost in each[1:]:
        second = torch.minimum(second, torch.maximum(best, cost))
        best = torch.minimum(best, cost)
    return torch.minimum(0.5 * (best + second), best + MATCHING_PARAMS.single_view_penalty)


def plane_normals(planes: PlaneHypotheses, view: StereoView) -> Float[Tensor, "3 h w"]:
    """Unit normals of the planes in the camera's frame, towards the camera."""
    x, y, _ = ray_grid(view)
    fx, fy = view.intrinsics[:2]
    a, b = fx * planes.a, fy * planes.b
    normal = -torch.stack([a, b, planes.w - a * x - b * y])
    return normal / torch.sqrt((normal * normal).sum(dim=0).clamp(min=1e-24))


def planes_through(view: StereoView, w: Float[Tensor, "h w"], normal: Float[Tensor, "3 h w"]) -> PlaneHypotheses:
    """The planes with inverse depth ``w`` at the pixels and these normals (camera frame, either sign)."""
    rays = ray_grid(view)
    facing = (normal * rays).sum(dim=0)
    facing = torch.where(facing.abs() < 1e-3, torch.full_like(facing, 1e-3), facing)
    return PlaneHypotheses(
        w, w * normal[0] / (facing * view.intrinsics[0]), w * normal[1] / (facing * view.intrinsics[1])
    )


def facing_cosine(planes: PlaneHypotheses, view: StereoView) -> Float[Tensor, "h w"]:
    """Cosine between the planes' normals and the rays back to the camera."""
    x, y, _ = ray_grid(view)
    fx, fy = view.intrinsics[:2]
    square = (fx * planes.a) ** 2 + (fy * planes.b) ** 2 + (planes.w - planes.a * fx * x - planes.b * fy * y) ** 2
    return planes.w / torch.sqrt((square * (1.0 + x * x + y * y)).clamp(min=1e-24))


def upsample_planes(planes: PlaneHypotheses, shape: tuple[int, int]) -> PlaneHypotheses:
    """The same planes for the next finer pyramid level of ``shape`` [h, w], about twice the size."""
    h, w = shape
    row = (torch.arange(h, device=planes.w.device) // 2).clamp(max=planes.w.shape[0] - 1)
    column = (torch.arange(w, device=planes.w.device) // 2).clamp(max=planes.w.shape[1] - 1)
    at = [field[row][:, column] for field in planes]
    dx = (torch.arange(w, device=planes.w.device) + 0.5) / 2.0 - (column + 0.5)
    dy = (torch.arange(h, device=planes.w.device) + 0.5) / 2.0 - (row + 0.5)
    parent = PlaneHypotheses(*at)
    return PlaneHypotheses(parent.inverse_depth_at(dx, dy[:, None]), parent.a / 2.0, parent.b / 2.0)


def _intrinsic_matrix(k: Float[Tensor, "4"]) -> Float[Tensor, "3 3"]:
    out = torch.eye(3, device=k.device)
    out[0, 0], out[1, 1], out[0, 2], out[1, 2] = k[0], k[1], k[2], k[3]
    return out


def reproject_planes(view: StereoView, sources: list[tuple[StereoView, PlaneHypotheses]]) -> PlaneHypotheses:
    """Planes of ``sources`` at the pixels of ``view`` that their points project to, the nearest of several.

    w = 0 at pixels that none projects to.
    """
    h, w = view.gray.shape
    device = view.gray.device
    world_parts = [(torch.zeros(0, 3, device=device), torch.zeros(0, 3, device=device))]
    for source, planes in sources:
        is_valid = planes.w > 0
        camera = (ray_grid(source) / planes.w.clamp(min=1e-9))[:, is_valid].T
        normal = plane_normals(planes, source)[:, is_valid].T
        rotation, translation = source.cam_from_world[:, :3], source.cam_from_world[:, 3]
        world_parts.append(((camera - translation) @ rotation, normal @ rotation))
    points, normals = (torch.cat(parts) for parts in zip(*world_parts, strict=True))
    camera = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    k, z = view.intrinsics, camera[:, 2]
    column, row = ((camera[:, :2] / z.clamp(min=1e-6)[:, None]) * k[:2] + k[2:]).floor().unbind(1)
    inside = torch.nonzero((z > 1e-6) & (column >= 0) & (column < w) & (row >= 0) & (row < h))[:, 0]
    pixel = (row[inside] * w + column[inside]).long()
    nearest = torch.full((h * w,), torch.inf, device=device).scatter_reduce(0, pixel, z[inside], "amin")
    first = z[inside] == nearest[pixel]
    pixel, inside = pixel[first], inside[first]
    inverse, normal = torch.zeros(h * w, device=device), torch.zeros(3, h * w, device=device)
    # the point lies anywhere in the pixel: its plane is intersected with the ray through the pixel center
    normals_camera = normals[inside] @ view.cam_from_world[:, :3].T
    rays = ray_grid(view).reshape(3, -1)[:, pixel].T
    along = (normals_camera * rays).sum(dim=1)
    offset = (normals_camera * camera[inside]).sum(dim=1)
    inverse[pixel] = torch.where(offset.abs() > 1e-9, along / offset, torch.zeros_like(along)).clamp(min=0.0)
    normal[:, pixel] = normals_camera.T
    return planes_through(view, inverse.view(h, w), normal.view(3, h, w))


def sensor_planes(depth: Float[Tensor, "h w"]) -> PlaneHypotheses:
    """Plane of every pixel of a depth map (0: no depth), with the slope of its neighbors.

    The slope is 0, so that the plane faces the camera, where a neighbor has no depth or is on another surface.
    """
    w = torch.where(depth > 0, 1.0 / depth.clamp(min=1e-9), torch.zeros_like(depth))
    padded = functional.pad(w[None, None], (SLOPE_REACH_PX,) * 4)[0, 0]
    inner = slice(SLOPE_REACH_PX, -SLOPE_REACH_PX)

    def slope(before: Tensor, after: Tensor) -> Tensor:
        same = (before > 0) & (after > 0) & ((0.5 * (before + after) - w).abs() < MAX_BEND_SHARE * w)
        return torch.where(same, (after - before) / (2 * SLOPE_REACH_PX), torch.zeros_like(w))

    across = slope(padded[inner, : -2 * SLOPE_REACH_PX], padded[inner, 2 * SLOPE_REACH_PX :])
    down = slope(padded[: -2 * SLOPE_REACH_PX, inner], padded[2 * SLOPE_REACH_PX :, inner])
    return PlaneHypotheses(w, across, down)
