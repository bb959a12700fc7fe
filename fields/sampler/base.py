"""The samplers behind one call: from a ray's stretch in the block to distances and section lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.renderer.density import DensityRenderer
from quoin.fields.renderer.neus import NeusRenderer
from quoin.fields.renderer.surface_rendering import SurfaceRenderer
from quoin.fields.renderer.volsdf import LaplaceRenderer
from quoin.fields.renderer.volume import weights_from_alpha
from quoin.fields.sampler.bounded import bounded_samples
from quoin.fields.sampler.guided import guided_samples, march_volume
from quoin.fields.sampler.importance import merge_sorted, neus_upsample, sample_pdf, sdf_along
from quoin.fields.sampler.sections import find_first_crossing, section_lengths, sections_between
from quoin.fields.sampler.stratified import stratified_samples
from quoin.fields.sampler.trace import march_and_secant, sphere_trace
from quoin.fields.sampler.window import window_samples

Renderer = NeusRenderer | LaplaceRenderer | DensityRenderer | SurfaceRenderer


class RaySegments(NamedTuple):
    """Rays in the block, and what may be asked about the surface along them."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]  # unit
    near: Float[Tensor, "rays"]
    far: Float[Tensor, "rays"]
    sdf: Callable[[Tensor], Tensor]  # the network
    renderer: Renderer
    cache: DenseSdf


SampleIntervals = tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"]]


@runtime_checkable
class Sampler(Protocol):
    """Distances, ascending, and section lengths; ``jitter`` [rays, n_jitter] in [0, 1) is all its randomness."""

    n_jitter: int

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals: ...


class GuidedSampler:
    """By the cached volume alone (``guided.py``)."""

    def __init__(self, samples: int) -> None:
        self.n_jitter = samples

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        segment = (rays.origins, rays.directions, rays.near, rays.far)
        return guided_samples(rays.cache, rays.renderer.proposal_alpha, *segment, jitter, rays.renderer.max_steps)


class ImportanceSampler:
    """Even, with one jitter a ray, then by the network (NeuS sec. 4.1)."""

    n_jitter = 1

    def __init__(self, coarse: int, rounds: int, per_round: int) -> None:
        self.coarse, self.rounds, self.per_round = coarse, rounds, per_round

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        even, _ = stratified_samples(rays.near, rays.far, jitter.expand(-1, self.coarse))
        edges = neus_upsample(rays.sdf, rays.origins, rays.directions, even, self.rounds, self.per_round)
        return sections_between(edges)


class HierarchicalSampler:
    """Even, then by the weights that the field gives these (NeRF sec. 5.2); one field for both, NeRF has two."""

    def __init__(self, coarse: int, fine: int) -> None:
        self.n_jitter, self.coarse = coarse + fine, coarse

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        even, _ = stratified_samples(rays.near, rays.far, jitter[:, : self.coarse])
        value = sdf_along(rays.sdf, rays.origins, rays.directions, even)
        deltas = (rays.far - rays.near)[:, None] / self.coarse
        weight = weights_from_alpha(rays.renderer.proposal_alpha(value, deltas, deltas.new_zeros(())))
        t = merge_sorted(even, sample_pdf(even, weight, jitter[:, self.coarse :]))
        return t, section_lengths(t)


class ErrorBoundedSampler:
    """Where opacity is right to a bound (VolSDF, algorithm 1)."""

    def __init__(self, samples: int, n_initial: int, rounds: int, epsilon: float) -> None:
        self.n_jitter, self.n_initial, self.rounds, self.epsilon = samples, n_initial, rounds, epsilon

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        segment = (rays.origins, rays.directions, rays.near, rays.far)
        beta = 1.0 / rays.renderer.inv_s()
        return bounded_samples(
            rays.sdf, *segment, beta, jitter, n_initial=self.n_initial, epsilon=self.epsilon, rounds=self.rounds
        )


class WindowSampler:
    """Around the surface of the cached volume, then by the network (NeuralRecon-W sec. 3.2)."""

    def __init__(self, window: int, n_boundary: int, rounds: int, per_round: int, half_width: float) -> None:
        self.n_jitter = window + 2 * n_boundary
        self.n_boundary, self.rounds, self.per_round, self.half_width = n_boundary, rounds, per_round, half_width

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        segment = (rays.origins, rays.directions, rays.near, rays.far)
        surface, has_surface = interpolate_first_crossing(*march_volume(rays.cache, *segment))
        half = self.half_width * rays.cache.spacing
        around = window_samples(surface, has_surface, rays.near, rays.far, half, jitter, self.n_boundary)
        refined = neus_upsample(
            rays.sdf, rays.origins, rays.directions, around, self.rounds, self.per_round, inv_s=512.0
        )
        return sections_between(refined)


class SphereTracingSampler:
    """On the first surface, by sphere tracing and marching where that does not arrive (IDR); of no length if none."""

    n_jitter = 0

    def __init__(self, iterations: int, march: int, secants: int) -> None:
        self.iterations, self.march, self.secants = iterations, march, secants

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        segment = (rays.origins, rays.directions, rays.near, rays.far)
        surface_hits = sphere_trace(
            rays.sdf, *segment, self.iterations, n_fallback=self.march, secant_steps=self.secants
        )
        return samples_on_surface(*surface_hits)


class RayMarchingSampler:
    """On the first surface, by the first change of sign among even samples (DVR); of no length where there is none."""

    n_jitter = 0

    def __init__(self, steps: int, secants: int) -> None:
        self.steps, self.secants = steps, secants

    def __call__(self, rays: RaySegments, jitter: Float[Tensor, "rays jitter"]) -> SampleIntervals:
        segment = (rays.origins, rays.directions, rays.near, rays.far)
        return samples_on_surface(*march_and_secant(rays.sdf, *segment, self.steps, self.secants))


def samples_on_surface(t: Float[Tensor, "rays"], has_surface: Bool[Tensor, "rays"]) -> SampleIntervals:
    """A sample a ray; one without a surface has no length."""
    return t[:, None], has_surface.to(t.dtype)[:, None]


def interpolate_first_crossing(
    edges: Float[Tensor, "rays edges"], sdf: Float[Tensor, "rays edges"]
) -> tuple[Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """Where the SDF first goes from outside in, by linear interpolation; and whether it does."""
    at, has_surface = find_first_crossing(sdf)
    f0, f1 = sdf.gather(1, at), sdf.gather(1, at + 1)
    share = (f0 / (f0 - f1).clamp(min=1e-9)).clamp(0.0, 1.0)
    return torch.lerp(edges.gather(1, at), edges.gather(1, at + 1), share)[:, 0], has_surface
