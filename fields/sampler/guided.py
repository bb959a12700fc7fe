"""Samplers guided by a cached SDF volume: by its weights, or in a window around its surface (NeuralRecon-W sec. 3.2).

The volume is marched (NeuralRecon-W keeps a sparse cache for the same purpose). Its weights are a distribution from
which few samples are drawn, without evaluating the network; the window is searched further with the network. Rays are
cut to where SfM saw something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.renderer.renderer import weights_from_alpha
from quoin.fields.sampler.importance import neus_upsample, sample_pdf
from quoin.fields.sampler.sampler import SamplerConfig, SurfaceQuery
from quoin.fields.sampler.sections import (
    interpolate_first_crossing,
    section_lengths,
    sections_between,
    stratified_samples,
)
from quoin.fields.sdf_grids import DenseSdf

N_MARCH_STEPS = 128
UNIFORM_SHARE = 0.15  # share of the samples that is spread evenly: finds surfaces that the volume does not know

FIRST_INV_S = 512.0  # of the first round of up-sampling


class GuidedSamplerConfig(SamplerConfig):
    """Samples where the SDF cache shows the surface; the network is not evaluated."""

    uses_cache_only: ClassVar[bool] = True
    kind: Literal["guided"] = "guided"
    samples: int = Field(16, ge=4)
    """Samples of a ray."""

    def build(self) -> GuidedSampler:
        return GuidedSampler(self.samples)


class GuidedSampler:
    """Samples drawn from the weights that the cached volume gives the intervals of a march."""

    def __init__(self, samples: int) -> None:
        self.n_jitter = samples

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays samples"]) -> RaySamples:
        """Samples, ascending; ``jitter`` places each inside its stratum of the cumulative distribution.

        An interval is at most ``renderer.max_steps`` steps of the march long.
        """
        cache, renderer = surface.cache, surface.renderer
        edges, sdf = march_volume(cache, rays)
        extent = rays.far - rays.near
        weight = weights_from_alpha(renderer.proposal_alpha(sdf, extent[:, None] / N_MARCH_STEPS, cache.spacing))
        # neighbors share the larger weight (mip-NeRF's blur-pool): the volume may be off by an interval
        padded = torch.nn.functional.pad(weight, (1, 1))
        weight = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 2:]), weight)
        total = weight.sum(dim=1, keepdim=True)
        share = weight * (1.0 - UNIFORM_SHARE) / total.clamp(min=1e-6) * total.clamp(max=1.0)
        t = sample_pdf(edges, share + (1.0 - share.sum(dim=1, keepdim=True)) / N_MARCH_STEPS, jitter)
        max_delta = renderer.max_steps * torch.maximum(extent / N_MARCH_STEPS, cache.spacing)
        return RaySamples(rays, t, torch.minimum(section_lengths(t), max_delta[:, None]))


def march_volume(
    volume: DenseSdf, rays: RaySegments
) -> tuple[Float[Tensor, "rays edges"], Float[Tensor, "rays edges"]]:
    """Equidistant distances from near to far, and the volume's SDF there."""
    steps = torch.linspace(0.0, 1.0, N_MARCH_STEPS + 1, device=rays.near.device)
    edges = rays.near[:, None] + (rays.far - rays.near)[:, None] * steps
    return edges, volume(rays.points(edges).reshape(-1, 3)).view(edges.shape)


class WindowSamplerConfig(SamplerConfig):
    """Samples in a window around the cached surface, before it and behind it, and rounds of more (NeuralRecon-W)."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"beside": "n_boundary"}
    kind: Literal["window"] = "window"
    window: int = Field(8, ge=2)
    """Samples in the window around the surface."""
    n_boundary: int = Field(5, ge=2)
    """Samples before the window, and as many behind it."""
    rounds: int = Field(2, ge=1)
    """Rounds of importance sampling."""
    per_round: int = Field(8, ge=1)
    """Samples that each round adds."""
    half_width: float = Field(16.0, gt=0)
    """Half width of the window, cells of the cached volume."""

    def build(self) -> WindowSampler:
        return WindowSampler(self.window, self.n_boundary, self.rounds, self.per_round, self.half_width)


class WindowSampler:
    """Samples around the surface of the cached volume, and more where the network shows it (NeuralRecon-W sec. 3.2)."""

    def __init__(self, window: int, n_boundary: int, rounds: int, per_round: int, half_width: float) -> None:
        self.n_jitter = window + 2 * n_boundary
        self.n_boundary, self.rounds, self.per_round, self.half_width = n_boundary, rounds, per_round, half_width

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays jitter"]) -> RaySamples:
        """Samples in the middle between ascending edges."""
        at, has_surface = interpolate_first_crossing(*march_volume(surface.cache, rays))
        half_width = self.half_width * surface.cache.spacing
        around = window_samples(rays, at, has_surface, half_width, jitter, self.n_boundary)
        edges = neus_upsample(surface.sdf, rays, around, self.rounds, self.per_round, FIRST_INV_S)
        return RaySamples(rays, *sections_between(edges))


def window_samples(
    rays: RaySegments,
    surface: Float[Tensor, "rays"],
    has_surface: Bool[Tensor, "rays"],
    half_width: Float[Tensor, ""],
    jitter: Float[Tensor, "rays samples"],
    n_boundary: int = 5,
) -> Float[Tensor, "rays samples"]:
    """Distances, ascending: stratified in the window ``surface`` ± ``half_width``, ``n_boundary`` before and behind it.

    ``surface`` is the cached distance of the surface, between near and far; rays without one are stratified from near
    to far. NeuralRecon-W takes 8 in the window, 5 on each side, and 2 × 8 more by ``neus_upsample``. Its official
    renderer.py up-samples before it adds the sides; here the sides are up-sampled too, so that samples can leave a
    window that is out of date.
    """
    near, far = rays.near, rays.far
    low = torch.minimum(torch.maximum(surface - half_width, near), far)
    high = torch.minimum(torch.maximum(surface + half_width, near), far)
    parts = jitter.split([n_boundary, jitter.shape[1] - 2 * n_boundary, n_boundary], dim=1)
    segments = ((near, low), (low, high), (high, far))
    around = [stratified_samples(*segment, part)[0] for segment, part in zip(segments, parts, strict=True)]
    return torch.where(has_surface[:, None], torch.cat(around, dim=1), stratified_samples(near, far, jitter)[0])


def occupied_interval(
    rays: RaySegments,
    occupied: Bool[Tensor, "x y z"],
    low: Float[Tensor, "3"],
    spacing: Float[Tensor, ""],
    n_march: int = 128,
) -> RaySegments:
    """The rays cut to near..far from the first to the last occupied voxel and one voxel on; hits: True if there is one.

    Voxel (i, j, k) begins at low + spacing·(i, j, k). Rays are marched in ``n_march`` equal steps, and the result is
    one step longer at both ends than what they hit; steps longer than a voxel may miss one. Rays that hit no voxel keep
    near and far.
    """
    near, far = rays.near, rays.far
    step = ((far - near) / n_march)[:, None]
    t = near[:, None] + step * (torch.arange(n_march, device=near.device) + 0.5)
    index = ((rays.points(t) - low) / spacing).floor().long().unbind(dim=2)
    i, j, k = (part.clamp(0, size - 1) for part, size in zip(index, occupied.shape, strict=True))
    inside = (i == index[0]) & (j == index[1]) & (k == index[2])
    hit = occupied[i, j, k] & inside
    first = torch.where(hit, t - step, far[:, None]).amin(dim=1)
    last = torch.where(hit, t + step + spacing, near[:, None]).amax(dim=1)
    hits = hit.any(dim=1)
    near, far = torch.where(hits, torch.maximum(first, near), near), torch.where(hits, torch.minimum(last, far), far)
    return RaySegments(rays.origins, rays.directions, near, far, hits)


def occupied_voxels(
    points: Float[Tensor, "points 3"], low: Float[Tensor, "3"], spacing: Float[Tensor, ""], shape: tuple[int, int, int]
) -> Bool[Tensor, "x y z"]:
    """Voxels that hold a point, and the 26 neighbors of each, for ``occupied_interval``. Eager only."""
    bordered = torch.tensor(shape, device=points.device) + 2
    index = ((points - low) / spacing).floor().long() + 1
    i, j, k = index[((index >= 0) & (index < bordered)).all(dim=1)].unbind(dim=1)
    holds = torch.zeros([size + 2 for size in shape], device=points.device)
    holds[i, j, k] = 1.0
    return functional.max_pool3d(holds[None, None], kernel_size=3, stride=1)[0, 0] > 0
