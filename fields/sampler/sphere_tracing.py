"""Sphere tracing to the first surface (Yariv et al. 2020, IDR), without gradient; see ``ray_marching.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.sampler.ray_marching import evaluate_along, march_and_secant, samples_on_surface
from quoin.fields.sampler.sampler import SamplerConfig, ScalarField, SurfaceQuery

MAX_HALVINGS = 3  # halvings of a step, line_step_iters in IDR's configuration


class TraceSamplerConfig(SamplerConfig):
    """The first surface, by sphere tracing, and by marching where that does not arrive (IDR)."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"march": "n_fallback"}
    finds_surface: ClassVar[bool] = True
    kind: Literal["trace"] = "trace"
    iterations: int = Field(10, ge=1)
    n_fallback: int = Field(100, ge=2)  # equidistant samples of the march
    secants: int = Field(8, ge=0)

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
