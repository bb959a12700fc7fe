"""The samplers behind one call: from a ray's stretch in the block to distances and section lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.fields.grids.dense_sdf import Volume
from quoin.fields.renderer.density import Density
from quoin.fields.renderer.neus import Neus
from quoin.fields.renderer.surface_rendering import Surface
from quoin.fields.renderer.volsdf import Laplace
from quoin.fields.renderer.volume import weights
from quoin.fields.sampler.bounded import bounded_samples
from quoin.fields.sampler.guided import guided_samples, march
from quoin.fields.sampler.importance import importance, merge, neus_upsample, sdf_along
from quoin.fields.sampler.sections import first_entry, section_lengths, sections_between
from quoin.fields.sampler.stratified import stratified
from quoin.fields.sampler.trace import march_and_secant, sphere_trace
from quoin.fields.sampler.window import window_samples

Renderer = Neus | Laplace | Density | Surface


class Stretch(NamedTuple):
    """Rays in the block, and what may be asked about the surface along them."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]  # unit
    enter: Float[Tensor, "rays"]
    leave: Float[Tensor, "rays"]
    sdf: Callable[[Tensor], Tensor]  # the network
    renderer: Renderer
    cache: Volume


Samples = tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"]]


@runtime_checkable
class Sampler(Protocol):
    """Distances, ascending, and section lengths; ``jitter`` [rays, n_jitter] in [0, 1) is all its randomness."""

    n_jitter: int

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples: ...


class Guided:
    """By the cached volume alone (``guided.py``)."""

    def __init__(self, samples: int) -> None:
        self.n_jitter = samples

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        stretch = (rays.origins, rays.directions, rays.enter, rays.leave)
        return guided_samples(rays.cache, rays.renderer.guide, *stretch, jitter, rays.renderer.most_steps)


class Importance:
    """Even, with one jitter a ray, then by the network (NeuS sec. 4.1)."""

    n_jitter = 1

    def __init__(self, coarse: int, rounds: int, per_round: int) -> None:
        self.coarse, self.rounds, self.per_round = coarse, rounds, per_round

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        even, _ = stratified(rays.enter, rays.leave, jitter.expand(-1, self.coarse))
        edges = neus_upsample(rays.sdf, rays.origins, rays.directions, even, self.rounds, self.per_round)
        return sections_between(edges)


class Hierarchical:
    """Even, then by the weights that the field gives these (NeRF sec. 5.2); one field for both, NeRF has two."""

    def __init__(self, coarse: int, fine: int) -> None:
        self.n_jitter, self.coarse = coarse + fine, coarse

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        even, _ = stratified(rays.enter, rays.leave, jitter[:, : self.coarse])
        value = sdf_along(rays.sdf, rays.origins, rays.directions, even)
        length = (rays.leave - rays.enter)[:, None] / self.coarse
        weight = weights(rays.renderer.guide(value, length, length.new_zeros(())))
        distance = merge(even, importance(even, weight, jitter[:, self.coarse :]))
        return distance, section_lengths(distance)


class Bounded:
    """Where opacity is right to a bound (VolSDF, algorithm 1)."""

    def __init__(self, samples: int, search: int, rounds: int, error: float) -> None:
        self.n_jitter, self.search, self.rounds, self.error = samples, search, rounds, error

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        stretch = (rays.origins, rays.directions, rays.enter, rays.leave)
        beta = 1.0 / rays.renderer.sharpness()
        return bounded_samples(
            rays.sdf, *stretch, beta, jitter, n_initial=self.search, epsilon=self.error, rounds=self.rounds
        )


class Window:
    """Around the surface of the cached volume, then by the network (NeuralRecon-W sec. 3.2)."""

    def __init__(self, window: int, beside: int, rounds: int, per_round: int, half_width: float) -> None:
        self.n_jitter = window + 2 * beside
        self.beside, self.rounds, self.per_round, self.half_width = beside, rounds, per_round, half_width

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        stretch = (rays.origins, rays.directions, rays.enter, rays.leave)
        surface, found = cached_surface(*march(rays.cache, *stretch))
        half = self.half_width * rays.cache.spacing
        around = window_samples(surface, found, rays.enter, rays.leave, half, jitter, self.beside)
        refined = neus_upsample(
            rays.sdf, rays.origins, rays.directions, around, self.rounds, self.per_round, sharpness=512.0
        )
        return sections_between(refined)


class Trace:
    """On the first surface, by sphere tracing and marching where that does not arrive (IDR); of no length if none."""

    n_jitter = 0

    def __init__(self, iterations: int, march: int, secants: int) -> None:
        self.iterations, self.march, self.secants = iterations, march, secants

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        stretch = (rays.origins, rays.directions, rays.enter, rays.leave)
        found = sphere_trace(rays.sdf, *stretch, self.iterations, n_fallback=self.march, secant_steps=self.secants)
        return on_surface(*found)


class March:
    """On the first surface, by the first change of sign among even samples (DVR); of no length where there is none."""

    n_jitter = 0

    def __init__(self, steps: int, secants: int) -> None:
        self.steps, self.secants = steps, secants

    def __call__(self, rays: Stretch, jitter: Float[Tensor, "rays jitter"]) -> Samples:
        stretch = (rays.origins, rays.directions, rays.enter, rays.leave)
        return on_surface(*march_and_secant(rays.sdf, *stretch, self.steps, self.secants))


def on_surface(distance: Float[Tensor, "rays"], found: Bool[Tensor, "rays"]) -> Samples:
    """A sample a ray; one without a surface has no length."""
    return distance[:, None], found.to(distance.dtype)[:, None]


def cached_surface(
    edges: Float[Tensor, "rays edges"], sdf: Float[Tensor, "rays edges"]
) -> tuple[Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """Where the SDF first goes from outside in, by linear interpolation; and whether it does."""
    at, found = first_entry(sdf)
    f0, f1 = sdf.gather(1, at), sdf.gather(1, at + 1)
    share = (f0 / (f0 - f1).clamp(min=1e-9)).clamp(0.0, 1.0)
    return torch.lerp(edges.gather(1, at), edges.gather(1, at + 1), share)[:, 0], found
