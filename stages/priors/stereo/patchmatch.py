"""PatchMatch: planes that explain the other photos, found by trying what neighbours found (Bleyer et al. 2011).

A sweep at the coarsest level starts it; then, level by level, each pixel tries its neighbours' planes (from four sides,
the best of near and far: the checkerboard of ACMH, Xu & Tao 2019, without the board), the slant its neighbours' depths
suggest, and random changes that shrink from round to round.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from quoin.fields.compile import compiled, free_sizes
from quoin.stages.priors.stereo.hypotheses import (
    FAIL,
    MIN_FACING,
    Planes,
    Windows,
    facing,
    plane_cost,
    planes_through,
    windows,
)
from quoin.stages.priors.stereo.views import View, ray_grid, relative_poses

CHUNK, CHUNK_CUDA = 1 << 12, 1 << 18  # pixels compared at once: what fits in a core's cache, or keeps a GPU busy
REACHES = ((1, 2, 4), (1, 5, 11))  # pixels to neighbours whose planes are tried, in turn
SWEEP = 48  # planes of a family in the first sweep


class Search:
    """The planes of one photo at one level, improved by what it is told to try."""

    def __init__(
        self,
        reference: View,
        sources: list[View],
        n_sources: int,
        inverse_range: tuple[float, float],
        generator: torch.Generator,
    ) -> None:
        self.view, self.generator, self.range = reference, generator, inverse_range
        device = str(reference.gray.device)
        self.size = CHUNK_CUDA if device.startswith("cuda") else CHUNK
        self.known = _parts(windows(reference, sources, n_sources), self.size)
        self._cost = compiled(plane_cost, device)
        # change of inverse depth that moves a point by about a pixel in the sources
        baselines = relative_poses(reference, sources)[1].norm(dim=1)
        focal = torch.stack([s.intrinsics[0] for s in sources]).mean()
        self.pixel = 1.0 / (focal * baselines.median().clamp(min=1e-9))
        self.planes = Planes(*(torch.zeros_like(reference.gray) for _ in range(3)))
        self.cost = torch.full_like(reference.gray, FAIL)

    def start(self, planes: Planes) -> None:
        """Begin from these planes, at their cost here."""
        self.planes, self.cost = planes, self.compare(planes)

    def compare(self, planes: Planes) -> Float[Tensor, "h w"]:
        """The cost of these planes; FAIL where they are out of range or seen too flatly."""
        flat = [functional.pad(field.reshape(-1), (0, -field.numel() % self.size)).split(self.size) for field in planes]
        cost = torch.cat([self._cost(Planes(*part), known) for *part, known in zip(*flat, self.known, strict=True)])
        low, high = self.range
        allowed = (planes.w > 0.5 * low) & (planes.w < 2.0 * high) & (facing(planes, self.view) > MIN_FACING)
        return torch.where(allowed, cost[: planes.w.numel()].view_as(planes.w), FAIL)

    def attempt(self, planes: Planes) -> None:
        """Take over these planes where they cost less."""
        cost = self.compare(planes)
        better = cost < self.cost
        self.planes, self.cost = _where(better, planes, self.planes), torch.where(better, cost, self.cost)

    def sweep(self, up: Float[Tensor, "3"]) -> None:
        """Planes facing the camera, and planes level in the world, over all inverse depths."""
        rays, (low, high) = ray_grid(self.view), self.range
        level = (self.view.cam_from_world[:, :3] @ up)[:, None, None].expand_as(rays)
        towards = torch.zeros_like(rays)
        towards[2] = -1.0
        for normal in (towards, level):
            for share in torch.linspace(0.0, 1.0, SWEEP).tolist():
                w = torch.full_like(self.cost, low + (high - low) * share)
                self.attempt(planes_through(self.view, w, normal))

    def spread(self, reaches: tuple[int, ...]) -> None:
        """Try, from each of four sides, the plane of the best of the neighbours at these distances."""
        before, cost = self.planes, self.cost
        for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            best, least = before, torch.full_like(cost, torch.inf)
            for reach in reaches:
                dx, dy = sx * reach, sy * reach
                theirs = _moved(cost, dx, dy)
                there = Planes(*(_moved(field, dx, dy) for field in before))
                best = _where(theirs < least, there._replace(w=there.at(-float(dx), -float(dy))), best)
                least = torch.minimum(theirs, least)
            self.attempt(best)

    def shake(self, scale: float) -> None:
        """Try random changes of depth (``scale`` pixels in the sources), then of slant (its tangent)."""
        size = self.cost.shape
        w, a, b = self.planes
        slant = min(1.0, scale)
        fx, fy = self.view.intrinsics[:2]
        dw, da, db = (
            torch.randn(3, *size, generator=self.generator).to(w.device)
            * torch.tensor([scale, slant, slant], device=w.device)[:, None, None]
        ).unbind()
        moved = w + dw * self.pixel
        turned_a, turned_b = a + da * w / fx, b + db * w / fy
        self.attempt(Planes(moved, a * moved / w.clamp(min=1e-9), b * moved / w.clamp(min=1e-9)))
        w = self.planes.w
        self.attempt(Planes(w, turned_a, turned_b))

    def flatten(self) -> None:
        """Try the slant and the depth that the neighbours' depths suggest."""
        w = functional.pad(self.planes.w[None, None], (2, 2, 2, 2), mode="replicate")[0, 0]
        across = (w[2:-2, 4:] - w[2:-2, :-4]) / 4.0
        down = (w[4:, 2:-2] - w[:-4, 2:-2]) / 4.0
        box = functional.avg_pool2d(w[None, None], 3, stride=1)[0, 0][1:-1, 1:-1]
        self.attempt(Planes(self.planes.w, across, down))
        self.attempt(Planes(box, across, down))


def _parts(known: Windows, size: int) -> list[Windows]:
    """The same for ``size`` pixels at a time (the last part filled up with nothing)."""
    free_sizes(known.images, 1, 2)
    fields = (known.xy, known.weight, known.centred, known.variance)
    split = [functional.pad(field, (0, -field.shape[-1] % size)).split(size, dim=-1) for field in fields]
    return [
        known._replace(xy=xy.contiguous(), weight=weight.contiguous(), centred=centred.contiguous(), variance=variance)
        for xy, weight, centred, variance in zip(*split, strict=True)
    ]


def _where(condition: Bool[Tensor, "h w"], new: Planes, old: Planes) -> Planes:
    return Planes(*(torch.where(condition, a, b) for a, b in zip(new, old, strict=True)))


def _moved(field: Float[Tensor, "h w"], dx: int, dy: int) -> Float[Tensor, "h w"]:
    """The field at ``dx``, ``dy`` pixels from each pixel; the border repeats."""
    h, w = field.shape
    row = (torch.arange(h, device=field.device) + dy).clamp(0, h - 1)
    column = (torch.arange(w, device=field.device) + dx).clamp(0, w - 1)
    return field[row][:, column]
