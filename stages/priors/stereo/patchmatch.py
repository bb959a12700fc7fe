"""PatchMatch stereo: a plane per pixel, found by trying those of neighboring pixels (Bleyer et al. 2011).

A plane sweep at the coarsest level gives the start. At each level every pixel then tries the planes of its neighbors
(on four sides, the best of several distances, as ACMH of Xu & Tao 2019, but without its checkerboard), the slant that
its neighbors' depths suggest, and random perturbations that shrink from round to round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from quoin.fields.device import compile_function, mark_dynamic
from quoin.stages.priors.stereo.hypotheses import (
    INVALID_COST,
    MATCHING_PARAMS,
    MatchingWindows,
    PlaneHypotheses,
    facing_cosine,
    make_windows,
    plane_cost,
    planes_through,
)
from quoin.stages.priors.stereo.views import StereoView, ray_grid, relative_poses


@dataclass(frozen=True)
class PatchMatchParams:
    """Tuned numbers of the search for planes at one pyramid level."""

    chunk_pixels_cpu: int = 1 << 12  # compared at once: what fits into a core's cache
    chunk_pixels_cuda: int = 1 << 18  # compared at once: what keeps a GPU busy
    # distances to the neighbors whose planes are tried, in turn from round to round
    propagation_reaches_px: tuple[tuple[int, ...], ...] = ((1, 2, 4), (1, 5, 11))
    n_sweep_planes: int = 48  # of each orientation in the first plane sweep


PATCHMATCH_PARAMS = PatchMatchParams()


class PatchMatch:
    """The planes of one photo at one pyramid level; every method tries hypotheses and keeps those of lower cost."""

    def __init__(
        self,
        reference: StereoView,
        sources: list[StereoView],
        n_sources: int,
        inverse_depth_range: tuple[float, float],
        generator: torch.Generator,
    ) -> None:
        self.view, self.generator, self.inverse_depth_range = reference, generator, inverse_depth_range
        device = str(reference.gray.device)
        self.chunk_size = (
            PATCHMATCH_PARAMS.chunk_pixels_cuda if device.startswith("cuda") else PATCHMATCH_PARAMS.chunk_pixels_cpu
        )
        self.windows = _split_windows(make_windows(reference, sources, n_sources), self.chunk_size)
        self._cost = compile_function(plane_cost, device)
        # change of inverse depth that moves a point by about a pixel in the sources
        baselines = relative_poses(reference, sources)[1].norm(dim=1)
        focal = torch.stack([s.intrinsics[0] for s in sources]).mean()
        self.inverse_depth_per_pixel = 1.0 / (focal * baselines.median().clamp(min=1e-9))
        self.planes = PlaneHypotheses(*(torch.zeros_like(reference.gray) for _ in range(3)))
        self.cost = torch.full_like(reference.gray, INVALID_COST)

    def start(self, planes: PlaneHypotheses) -> None:
        """Start from these planes, whatever they cost."""
        self.planes, self.cost = planes, self.compute_cost(planes)

    def compute_cost(self, planes: PlaneHypotheses) -> Float[Tensor, "h w"]:
        """Matching cost of these planes; INVALID_COST where they are out of the depth range or too slanted."""
        flat = [
            functional.pad(field.reshape(-1), (0, -field.numel() % self.chunk_size)).split(self.chunk_size)
            for field in planes
        ]
        cost = torch.cat(
            [self._cost(PlaneHypotheses(*part), windows) for *part, windows in zip(*flat, self.windows, strict=True)]
        )
        low, high = self.inverse_depth_range
        allowed = (
            (planes.w > 0.5 * low)
            & (planes.w < 2.0 * high)
            & (facing_cosine(planes, self.view) > MATCHING_PARAMS.min_facing_cos)
        )
        return torch.where(allowed, cost[: planes.w.numel()].view_as(planes.w), INVALID_COST)

    def try_hypothesis(self, planes: PlaneHypotheses) -> None:
        """Replace the current planes by these where they cost less."""
        cost = self.compute_cost(planes)
        better = cost < self.cost
        self.planes, self.cost = _select_planes(better, planes, self.planes), torch.where(better, cost, self.cost)

    def plane_sweep(self, up: Float[Tensor, "3"]) -> None:
        """Try planes that face the camera, and planes that are level in the world, over the range of inverse depths."""
        rays, (low, high) = ray_grid(self.view), self.inverse_depth_range
        level = (self.view.cam_from_world[:, :3] @ up)[:, None, None].expand_as(rays)
        towards = torch.zeros_like(rays)
        towards[2] = -1.0
        for normal in (towards, level):
            for share in torch.linspace(0.0, 1.0, PATCHMATCH_PARAMS.n_sweep_planes).tolist():
                w = torch.full_like(self.cost, low + (high - low) * share)
                self.try_hypothesis(planes_through(self.view, w, normal))

    def propagate(self, reaches: tuple[int, ...]) -> None:
        """Try, for each of four sides, the plane of the cheapest neighbor at these distances."""
        before, cost = self.planes, self.cost
        for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            best, lowest_cost = before, torch.full_like(cost, torch.inf)
            for reach in reaches:
                dx, dy = sx * reach, sy * reach
                neighbor_cost = _shifted(cost, dx, dy)
                neighbor_planes = PlaneHypotheses(*(_shifted(field, dx, dy) for field in before))
                best = _select_planes(
                    neighbor_cost < lowest_cost,
                    neighbor_planes._replace(w=neighbor_planes.inverse_depth_at(-float(dx), -float(dy))),
                    best,
                )
                lowest_cost = torch.minimum(neighbor_cost, lowest_cost)
            self.try_hypothesis(best)

    def perturb(self, scale: float) -> None:
        """Try random changes of depth (``scale``: in pixels of the sources), then of slant (in its tangent)."""
        size = self.cost.shape
        w, a, b = self.planes
        slant = min(1.0, scale)
        fx, fy = self.view.intrinsics[:2]
        dw, da, db = (
            torch.randn(3, *size, generator=self.generator).to(w.device)
            * torch.tensor([scale, slant, slant], device=w.device)[:, None, None]
        ).unbind()
        moved = w + dw * self.inverse_depth_per_pixel
        turned_a, turned_b = a + da * w / fx, b + db * w / fy
        self.try_hypothesis(PlaneHypotheses(moved, a * moved / w.clamp(min=1e-9), b * moved / w.clamp(min=1e-9)))
        w = self.planes.w
        self.try_hypothesis(PlaneHypotheses(w, turned_a, turned_b))

    def refine_slant(self) -> None:
        """Try the slant, and the smoothed depth, of the neighbors' depths."""
        w = functional.pad(self.planes.w[None, None], (2, 2, 2, 2), mode="replicate")[0, 0]
        across = (w[2:-2, 4:] - w[2:-2, :-4]) / 4.0
        down = (w[4:, 2:-2] - w[:-4, 2:-2]) / 4.0
        box = functional.avg_pool2d(w[None, None], 3, stride=1)[0, 0][1:-1, 1:-1]
        self.try_hypothesis(PlaneHypotheses(self.planes.w, across, down))
        self.try_hypothesis(PlaneHypotheses(box, across, down))


def _split_windows(windows: MatchingWindows, chunk_size: int) -> list[MatchingWindows]:
    """The windows in chunks of ``chunk_size`` pixels; the last is padded with zeros."""
    mark_dynamic(windows.images, 1, 2)
    fields = (windows.xy, windows.weight, windows.centered, windows.variance)
    split = [functional.pad(field, (0, -field.shape[-1] % chunk_size)).split(chunk_size, dim=-1) for field in fields]
    return [
        windows._replace(
            xy=xy.contiguous(), weight=weight.contiguous(), centered=centered.contiguous(), variance=variance
        )
        for xy, weight, centered, variance in zip(*split, strict=True)
    ]


def _select_planes(condition: Bool[Tensor, "h w"], new: PlaneHypotheses, old: PlaneHypotheses) -> PlaneHypotheses:
    return PlaneHypotheses(*(torch.where(condition, a, b) for a, b in zip(new, old, strict=True)))


def _shifted(field: Float[Tensor, "h w"], dx: int, dy: int) -> Float[Tensor, "h w"]:
    """The field shifted by ``dx``, ``dy`` pixels; the border is repeated."""
    h, w = field.shape
    row = (torch.arange(h, device=field.device) + dy).clamp(0, h - 1)
    column = (torch.arange(w, device=field.device) + dx).clamp(0, w - 1)
    return field[row][:, column]
