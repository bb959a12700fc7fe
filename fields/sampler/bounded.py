"""Samples for a Laplace density whose opacity is right within a bound (VolSDF sec. 3.3–3.4, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.renderer.renderer import alpha_from_density, weights_from_alpha
from quoin.fields.renderer.volsdf import laplace_density
from quoin.fields.sampler.importance import merge_samples, sample_pdf, sdf_along
from quoin.fields.sampler.sampler import SamplerConfig, ScalarField, SurfaceQuery
from quoin.fields.sampler.sections import section_lengths

N_BISECTIONS = 10


class BoundedSamplerConfig(SamplerConfig):
    """Samples whose opacity is right within a bound (VolSDF)."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"search": "n_initial", "error": "epsilon"}
    kind: Literal["bounded"] = "bounded"
    samples: int = Field(64, ge=4)
    """Samples of a ray."""
    n_initial: int = Field(128, ge=16)
    """Evaluations of a round."""
    rounds: int = Field(5, ge=1)
    """Rounds of refining the samples."""
    epsilon: float = Field(0.1, gt=0, lt=1)
    """Error of the opacity that ends the rounds."""

    def build(self) -> ErrorBoundedSampler:
        return ErrorBoundedSampler(self.samples, self.n_initial, self.rounds, self.epsilon)


class ErrorBoundedSampler:
    """Samples drawn from the opacity of ``bounded_opacity``.

    VolSDF's Algorithm 1 with the constants of its official ray_sampler.py, which takes 64 samples (and adds near, far
    and 32 of the searched distances). The network is evaluated ``n_initial·rounds`` times a ray, without gradient.
    """

    def __init__(self, samples: int, n_initial: int, rounds: int, epsilon: float) -> None:
        self.n_jitter, self.n_initial, self.rounds, self.epsilon = samples, n_initial, rounds, epsilon

    @torch.no_grad()
    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays samples"]) -> RaySamples:
        """Samples, ascending."""
        beta = 1.0 / surface.renderer.inv_s()
        t, value, wide = bounded_opacity(surface.sdf, rays, beta, self.n_initial, self.epsilon, self.rounds)
        density = laplace_density(value[:, :-1], wide[:, None])
        drawn = sample_pdf(t, weights_from_alpha(alpha_from_density(density, t.diff(dim=1))), jitter)
        return RaySamples(rays, drawn, section_lengths(drawn))


def opacity_error_bound(
    t: Float[Tensor, "rays edges"],
    sdf: Float[Tensor, "rays edges"],
    beta: Float[Tensor, ""] | Float[Tensor, "rays"],
) -> Float[Tensor, "rays edges-1"]:
    """Bound of the error of a ray's opacity in each interval between samples, if it is computed from these alone.

    Opacity is O(t) = 1 − exp(−∫σ), estimated as Ô with the density of each interval's first sample. In interval k
    |O − Ô| ≤ exp(−R̂ₖ)(exp(Êₖ₊₁) − 1), the integral R̂ₖ = Σᵢ<ₖ δᵢσᵢ up to its start and the bound of that integral's
    error up to its end Êₖ₊₁ = Σᵢ≤ₖ δᵢ² exp(−dᵢ*/β)/4β² (VolSDF eq. 12–15). Holds for true distances. ``beta`` is the
    density's, one for all or for each ray.
    """
    return _error_bound(t.diff(dim=1), sdf, _clearance(t, sdf), beta.expand(len(t))[:, None])


@torch.no_grad()
def bounded_opacity(
    sdf: ScalarField,
    rays: RaySegments,
    beta: Float[Tensor, ""],
    n_initial: int = 128,
    epsilon: float = 0.1,
    rounds: int = 5,
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"], Float[Tensor, "rays"]]:
    """Distances near..far, the SDF there, and for each ray β₊ ≥ β for which opacity from them is right to ``epsilon``.

    Starts from ``n_initial`` equidistant samples; each further round adds as many where the bound is large. β₊ = β
    where that suffices, else the smallest that N_BISECTIONS find. No gradient.
    """
    near, far = rays.near, rays.far
    share = torch.linspace(0.0, 1.0, n_initial, device=near.device, dtype=near.dtype)
    t = near[:, None] + (far - near)[:, None] * share
    middle = torch.full_like(t, 0.5)
    value = sdf_along(sdf, rays, t)
    for _ in range(rounds - 1):
        wide = _sufficient_beta(t, value, beta, epsilon)
        more = sample_pdf(t, opacity_error_bound(t, value, wide), middle)
        t, value = merge_samples(t, value, more, sdf_along(sdf, rays, more))
    return t, value, _sufficient_beta(t, value, beta, epsilon)


def _clearance(t: Float[Tensor, "rays edges"], sdf: Float[Tensor, "rays edges"]) -> Float[Tensor, "rays edges-1"]:
    """d*: a lower bound of the distance of an interval's points to the surface (VolSDF Theorem 1).

    The balls around both ends, with their distances as radii, hold no surface. Where both ends see the circle in which
    the balls meet at an acute angle, d* is its radius, else the smaller ball's; 0 if they do not meet or the surface
    lies between.
    """
    deltas, radius = t.diff(dim=1), sdf.abs()
    first, second = radius[:, :-1], radius[:, 1:]
    foot = 0.5 * (deltas + (first - second) * (first + second) / deltas.clamp(min=1e-12))
    circle = ((first - foot) * (first + foot)).clamp(min=0.0).sqrt()
    clearance = torch.where(foot < 0, first, torch.where(foot > deltas, second, circle))
    return torch.where(sdf[:, :-1] * sdf[:, 1:] > 0, clearance, 0.0)


def _error_bound(
    deltas: Float[Tensor, "rays n"],
    sdf: Float[Tensor, "rays n+1"],
    clearance: Float[Tensor, "rays n"],
    beta: Float[Tensor, "rays 1"],
) -> Float[Tensor, "rays n"]:
    integral = torch.cumsum(deltas * laplace_density(sdf[:, :-1], beta), dim=1)
    before = functional.pad(integral[:, :-1], (1, 0))
    error = torch.cumsum((0.5 * deltas / beta).square() * torch.exp(-clearance / beta), dim=1)
    return torch.exp((error - before).clamp(max=20.0)) - torch.exp(-before)


def _sufficient_beta(
    t: Float[Tensor, "rays edges"],
    sdf: Float[Tensor, "rays edges"],
    beta: Float[Tensor, ""],
    epsilon: float,
) -> Float[Tensor, "rays"]:
    """β if it keeps the opacity's error below epsilon; else between it and √(Σδ²/4 ln(1+ε)), which does (Lemma 2).

    The search halves their ratio, not their difference, for they may be a hundredfold apart.
    """
    deltas, clearance = t.diff(dim=1), _clearance(t, sdf)

    def suffices(candidate: Tensor) -> Tensor:
        return _error_bound(deltas, sdf, clearance, candidate).amax(dim=1, keepdim=True) <= epsilon

    high = torch.sqrt(deltas.square().sum(dim=1, keepdim=True) / (4.0 * math.log1p(epsilon)))
    high = torch.maximum(high, beta)
    low = beta.expand_as(high)
    enough = suffices(low)
    for _ in range(N_BISECTIONS):
        middle = torch.sqrt(low * high)
        good = suffices(middle)
        low, high = torch.where(good, low, middle), torch.where(good, middle, high)
    return torch.where(enough, beta, high)[:, 0]
