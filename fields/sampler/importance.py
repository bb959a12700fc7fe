"""Importance sampling: by the weights of coarser samples (NeRF), or of the surface that their SDF suggests (NeuS)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.renderer.neus import neus_alpha
from quoin.fields.renderer.renderer import weights_from_alpha
from quoin.fields.sampler.sampler import SamplerConfig, ScalarField, SurfaceQuery
from quoin.fields.sampler.sections import section_lengths, sections_between, stratified_samples


class ImportanceSamplerConfig(SamplerConfig):
    """Equidistant samples, then rounds of more where the network shows the surface (NeuS)."""

    kind: Literal["importance"] = "importance"
    coarse: int = Field(64, ge=4)
    """Evenly spaced samples of a ray."""
    rounds: int = Field(4, ge=1)
    """Rounds of importance sampling."""
    per_round: int = Field(16, ge=1)
    """Samples that each round adds."""

    def build(self) -> ImportanceSampler:
        return ImportanceSampler(self.coarse, self.rounds, self.per_round)


class ImportanceSampler:
    """Equidistant samples, with one jitter a ray, and more where the network shows the surface (NeuS sec. 4.1)."""

    n_jitter = 1

    def __init__(self, coarse: int, rounds: int, per_round: int) -> None:
        self.coarse, self.rounds, self.per_round = coarse, rounds, per_round

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays 1"]) -> RaySamples:
        """Samples in the middle between ascending edges."""
        coarse, _ = stratified_samples(rays.near, rays.far, jitter.expand(-1, self.coarse))
        return RaySamples(
            rays, *sections_between(neus_upsample(surface.sdf, rays, coarse, self.rounds, self.per_round))
        )


class HierarchicalSamplerConfig(SamplerConfig):
    """Stratified samples, then more by their weights (NeRF)."""

    kind: Literal["hierarchical"] = "hierarchical"
    coarse: int = Field(64, ge=4)
    """Evenly spaced samples of a ray."""
    fine: int = Field(128, ge=4)
    """Samples that importance adds."""

    def build(self) -> HierarchicalSampler:
        return HierarchicalSampler(self.coarse, self.fine)


class HierarchicalSampler:
    """Stratified samples, and more by the weights that the field gives them; one field for both, NeRF has two."""

    def __init__(self, coarse: int, fine: int) -> None:
        self.n_jitter, self.coarse = coarse + fine, coarse

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays jitter"]) -> RaySamples:
        """Samples, ascending, coarse and fine ones together."""
        coarse, _ = stratified_samples(rays.near, rays.far, jitter[:, : self.coarse])
        value = sdf_along(surface.sdf, rays, coarse)
        deltas = (rays.far - rays.near)[:, None] / self.coarse
        weight = weights_from_alpha(surface.renderer.proposal_alpha(value, deltas, deltas.new_zeros(())))
        t = merge_sorted(coarse, sample_pdf(coarse, weight, jitter[:, self.coarse :]))
        return RaySamples(rays, t, section_lengths(t))


def sample_pdf(
    edges: Float[Tensor, "rays edges"],
    weights: Float[Tensor, "rays edges-1"],
    jitter: Float[Tensor, "rays samples"],
) -> Float[Tensor, "rays samples"]:
    """Distances drawn from a density that is constant in each interval between ascending edges (NeRF sec. 5.2).

    An interval gets samples in proportion to its weight. ``jitter`` places each sample inside its stratum of the
    cumulative distribution, so they ascend; 0.5 makes them deterministic. A weight of 1e-5 is spread over the whole
    ray, so that a ray without weights is sampled evenly.
    """
    span = edges[:, -1:] - edges[:, :1]
    mass = weights + 1e-5 * edges.diff(dim=1) / span.clamp(min=1e-9)
    cumulative = functional.pad(torch.cumsum(mass, dim=1), (1, 0))
    n_samples = jitter.shape[1]
    quantiles = (torch.arange(n_samples, device=edges.device) + jitter) / n_samples * cumulative[:, -1:]
    right = torch.searchsorted(cumulative, quantiles, right=True).clamp(1, weights.shape[1])
    low, high = cumulative.gather(1, right - 1), cumulative.gather(1, right)
    fraction = ((quantiles - low) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
    return torch.lerp(edges.gather(1, right - 1), edges.gather(1, right), fraction)


def merge_sorted(distance_a: Float[Tensor, "rays a"], distance_b: Float[Tensor, "rays b"]) -> Float[Tensor, "rays a+b"]:
    """The distances of both, ascending."""
    return torch.cat([distance_a, distance_b], dim=1).sort(dim=1).values


def merge_samples(
    t: Float[Tensor, "rays a"],
    sdf: Float[Tensor, "rays a"],
    more: Float[Tensor, "rays b"],
    more_sdf: Float[Tensor, "rays b"],
) -> tuple[Float[Tensor, "rays a+b"], Float[Tensor, "rays a+b"]]:
    """The distances of both, ascending, and the values there."""
    merged, order = torch.cat([t, more], dim=1).sort(dim=1)
    return merged, torch.cat([sdf, more_sdf], dim=1).gather(1, order)


def sdf_along(sdf: ScalarField, rays: RaySegments, t: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples"]:
    """The field at distances along the rays."""
    return sdf(rays.points(t).reshape(-1, 3)).view(t.shape)


@torch.no_grad()
def neus_upsample(
    sdf: ScalarField,
    rays: RaySegments,
    t: Float[Tensor, "rays samples"],
    rounds: int = 4,
    per_round: int = 16,
    inv_s: float = 64.0,
) -> Float[Tensor, "rays more"]:
    """``t`` and in each round ``per_round`` more, drawn from the NeuS weights of the SDF at the samples so far.

    NeuS sec. 4.1 "hierarchical sampling", constants of its official renderer.py (up_sample): 1/s = ``inv_s``·2ⁱ in
    round i whatever the field has learned, 64 … 512 (NeuralRecon-W: 512 and 1024, 8 samples each). ``sdf`` is evaluated
    ``samples + per_round·(rounds − 1)`` times a ray. Ascending; no gradient.
    """
    middle = t.new_full((len(t), per_round), 0.5)
    value = sdf_along(sdf, rays, t)
    for i in range(rounds):
        more = sample_pdf(t, _upsampling_weights(t, value, inv_s * 2.0**i), middle)
        if i + 1 == rounds:
            return merge_sorted(t, more)
        t, value = merge_samples(t, value, more, sdf_along(sdf, rays, more))
    return t


def _upsampling_weights(
    t: Float[Tensor, "rays edges"], sdf: Float[Tensor, "rays edges"], inv_s: float
) -> Float[Tensor, "rays edges-1"]:
    """NeuS weights of the intervals between samples, their slopes taken from differences of the SDF.

    The steeper descent of an interval and the one before it counts: one just behind a surface may show none.
    """
    deltas = sections_between(t)[1]
    slope = sdf.diff(dim=1) / (deltas + 1e-5)
    steeper = torch.minimum(slope, functional.pad(slope[:, :-1], (1, 0))).clamp(-1e3, 0.0)
    middle = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    return weights_from_alpha(neus_alpha(middle, steeper, deltas, sdf.new_full((), inv_s), sdf.new_ones(())))
