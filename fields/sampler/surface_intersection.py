"""Intersections of rays with the first surface, without gradient: ray marching (DVR) and sphere tracing (IDR).

Niemeyer et al. 2020; Yariv et al. 2020. ``renderer/surface_rendering.py`` attaches the gradient to what is found. A ray
that starts inside has met its surface before ``near``: nothing is found on it. Samples of a ray are evaluated a few at
a time, and only the bracket of the surface is kept, so that memory does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.sampler.sampler import SamplerConfig, ScalarField, SurfaceQuery

SAMPLES_PER_BATCH = 16  # samples of a ray that are evaluated together

MAX_HALVINGS = 3  # halvings of a step, line_step_iters in IDR's configuration


class MarchSamplerConfig(SamplerConfig):
    """The first surface, by the first change of sign among equidistant samples (DVR)."""

    finds_surface: ClassVar[bool] = True
    kind: Literal["march"] = "march"
    steps: int = Field(128, ge=2)
    """Steps along a ray."""
    secants: int = Field(8, ge=0)
    """Secant steps to the surface between two samples."""

    def build(self) -> RayMarchingSampler:
        return RayMarchingSampler(self.steps, self.secants)


class RayMarchingSampler:
    """One sample a ray, on the first surface; of length 0 where there is none."""

    n_jitter = 0

    def __init__(self, steps: int, secants: int) -> None:
        self.steps, self.secants = steps, secants

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays 0"]) -> RaySamples:
        """The sample of each ray."""
        return samples_on_surface(rays, *march_and_secant(surface.sdf, rays, self.steps, self.secants))


def samples_on_surface(rays: RaySegments, t: Float[Tensor, "rays"], has_surface: Bool[Tensor, "rays"]) -> RaySamples:
    """One sample a ray at ``t``; of length 1 on a surface, of length 0 where there is none."""
    return RaySamples(rays, t[:, None], has_surface.to(t.dtype)[:, None])


@torch.no_grad()
def march_and_secant(
    value: ScalarField, rays: RaySegments, n_steps: int, secant_steps: int = 8, level: float = 0.0
) -> tuple[Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """Distance to the first entry into ``value`` < ``level``, ``far`` where there is none; and True where there is one.

    ``n_steps`` equidistant samples from ``near`` to ``far``, then ``secant_steps`` between the two that bracket the
    first entry (DVR, forward pass). The secant method keeps the bracket; an end that stays twice has its value halved
    (the Illinois rule). Without that the other end creeps where the surface is curved: on a torus, after 16 samples,
    8 steps leave |f| up to 5e-4 instead of 2e-9.
    """
    near, far = rays.near, rays.far
    t, values = near[None], evaluate_along(value, rays, near[None]) - level
    starts_outside = values[0] > 0
    pending = starts_outside
    bracket = torch.stack([near, torch.ones_like(near), far, -torch.ones_like(near)])
    for first in range(1, n_steps, SAMPLES_PER_BATCH):
        following = _equidistant(near, far, n_steps, first)
        t = torch.cat([t[-1:], following])
        values = torch.cat([values[-1:], evaluate_along(value, rays, following) - level])
        inside = values <= 0
        entered = pending & inside.any(dim=0)
        high = inside.to(torch.int32).argmax(dim=0, keepdim=True)
        low = (high - 1).clamp(min=0)
        ends = [rows.gather(0, at) for at in (low, high) for rows in (t, values)]
        bracket = torch.where(entered, torch.cat(ends), bracket)
        pending = pending & ~entered
    hit = starts_outside & ~pending
    return torch.where(hit, _secant(value, rays, bracket, secant_steps, level), far), hit


def _secant(
    value: ScalarField, rays: RaySegments, bracket: Float[Tensor, "4 rays"], steps: int, level: float
) -> Float[Tensor, "rays"]:
    """Zero of the line through the ends of a bracket (distance and value outside, the same inside), refined."""
    low, above, high, below = bracket
    side = torch.zeros_like(low)
    for _ in range(steps):
        middle = low + (high - low) * (above / (above - below))
        next_value = evaluate_along(value, rays, middle) - level
        inside = next_value <= 0
        last, side = side, 1.0 - 2.0 * inside.to(low.dtype)
        keep = 1.0 - 0.5 * (side == last).to(low.dtype)
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
        above, below = torch.where(inside, keep * above, next_value), torch.where(inside, next_value, keep * below)
    return low + (high - low) * (above / (above - below))


def _equidistant(near: Tensor, far: Tensor, n_steps: int, first: int) -> Float[Tensor, "batch rays"]:
    """SAMPLES_PER_BATCH of ``n_steps`` distances from ``near`` to ``far``, from ``first`` on; the last one repeats."""
    index = torch.arange(first, first + SAMPLES_PER_BATCH, device=near.device, dtype=near.dtype).clamp(max=n_steps - 1)
    return torch.lerp(near, far, index[:, None] / (n_steps - 1))


def evaluate_along(
    value: ScalarField, rays: RaySegments, t: Float[Tensor, "*steps rays"]
) -> Float[Tensor, "*steps rays"]:
    """The field at distances along the rays."""
    return _evaluate(value, rays.origins, rays.directions, t)


@torch.compiler.nested_compile_region  # the field is compiled once, not for every step: a minute instead of eight
def _evaluate(
    value: ScalarField, origins: Tensor, directions: Tensor, t: Float[Tensor, "*steps rays"]
) -> Float[Tensor, "*steps rays"]:
    points = origins + directions * t[..., None]
    return value(points.reshape(-1, 3)).view(t.shape)


class TraceSamplerConfig(SamplerConfig):
    """The first surface, by sphere tracing, and by marching where that does not arrive (IDR)."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"march": "n_fallback"}
    finds_surface: ClassVar[bool] = True
    kind: Literal["trace"] = "trace"
    iterations: int = Field(10, ge=1)
    """Steps of sphere tracing, at most."""
    n_fallback: int = Field(100, ge=2)
    """Equidistant samples of a ray on which sphere tracing finds no surface."""
    secants: int = Field(8, ge=0)
    """Secant steps to the surface between two samples."""

    def build(self) -> SphereTracingSampler:
        return SphereTracingSampler(self.iterations, self.n_fallback, self.secants)


class SphereTracingSampler:
    """One sample a ray, on the first surface; of length 0 where there is none."""

    n_jitter = 0

    def __init__(self, iterations: int, n_fallback: int, secants: int) -> None:
        self.iterations, self.n_fallback, self.secants = iterations, n_fallback, secants

    def __call__(self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays 0"]) -> RaySamples:
        """The sample of each ray."""
        found = sphere_trace(surface.sdf, rays, self.iterations, n_fallback=self.n_fallback, secant_steps=self.secants)
        return samples_on_surface(rays, *found)


@torch.no_grad()
def sphere_trace(
    sdf: ScalarField,
    rays: RaySegments,
    iterations: int = 10,
    *,
    threshold: float = 5e-5,
    n_fallback: int = 100,
    secant_steps: int = 8,
    fallback_share: float = 1.0,
) -> tuple[Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """Distance to the first surface, ``far`` where there is none; and True where there is one (IDR, ray_tracing.py).

    A ray steps ahead by the SDF until |sdf| <= ``threshold``. A step that lands inside (the field is no exact distance)
    is taken back and halved; a ray may spend its ``iterations`` + 3 evaluations on either. (IDR has three halvings for
    every step: three times the evaluations, of which an exact SDF needs none.) Then ``n_fallback`` samples are marched:
    their surface counts where tracing did not arrive, or stepped over it.

    ``fallback_share`` < 1 marches only that share of the rays, first those stuck on their way, then those that reached
    ``far``. That is cheaper, but then a ray's surface depends on the rest of the batch.
    """
    near, far = rays.near, rays.far
    at, current_value = near, evaluate_along(sdf, rays, near)
    step = torch.where(current_value > threshold, current_value, 0.0)
    for _ in range(iterations + MAX_HALVINGS):
        ahead = torch.minimum(at + step, far)
        next_value = evaluate_along(sdf, rays, ahead)
        overshot = next_value < -threshold
        at, current_value = torch.where(overshot, at, ahead), torch.where(overshot, current_value, next_value)
        step = torch.where(overshot, 0.5 * step, torch.where(current_value > threshold, current_value, 0.0))
    arrived = current_value.abs() <= threshold
    traced = torch.where(arrived, at, far)

    urgency = (~arrived).to(at.dtype) + (~arrived & (at < far)).to(at.dtype)
    chosen = urgency.topk(math.ceil(fallback_share * len(at))).indices
    marched, hit = march_and_secant(sdf, rays[chosen], n_fallback, secant_steps)
    t = torch.minimum(traced, traced.scatter(0, chosen, marched))
    return t, arrived | arrived.scatter(0, chosen, hit)
