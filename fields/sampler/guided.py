"""Surface-guided sampling by a cached SDF volume, without evaluating the network.

The volume is marched (NeuralRecon-W sec. 3.2 keeps a sparse cache for the same purpose); its weights are a distribution
from which few samples are drawn.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.renderer.renderer import weights_from_alpha
from quoin.fields.sampler.importance import sample_pdf
from quoin.fields.sampler.sampler import SamplerConfig, SurfaceQuery
from quoin.fields.sampler.sections import section_lengths
from quoin.fields.sdf_grids import DenseSdf

N_MARCH_STEPS = 128
UNIFORM_SHARE = 0.15  # share of the samples that is spread evenly: finds surfaces that the volume does not know


class GuidedSamplerConfig(SamplerConfig):
    """Samples where the SDF cache shows the surface; the network is not evaluated."""

    uses_cache_only: ClassVar[bool] = True
    kind: Literal["guided"] = "guided"
    samples: int = Field(16, ge=4)  # per ray

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
