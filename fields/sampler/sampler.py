"""What all samplers share: their call, what they may ask about the surface, and the base of their configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from quoin.fields.parts import PartConfig
from quoin.fields.rays import RaySamples, RaySegments
from quoin.fields.renderer.renderer import Renderer
from quoin.fields.sdf_grids import DenseSdf

ScalarField = Callable[[Tensor], Tensor]  # points [n, 3] -> [n], positive outside and negative inside


@dataclass(frozen=True)
class SurfaceQuery:
    """What a sampler may ask about the surface along the rays."""

    sdf: ScalarField  # the network
    renderer: Renderer
    cache: DenseSdf


@runtime_checkable
class Sampler(Protocol):
    """Samples of rays; ``jitter`` [rays, n_jitter] in [0, 1) is all the randomness of a sampler."""

    n_jitter: int

    def __call__(
        self, rays: RaySegments, surface: SurfaceQuery, jitter: Float[Tensor, "rays jitter"]
    ) -> RaySamples: ...


class SamplerConfig(PartConfig):
    """Base of the configurations of samplers."""

    finds_surface: ClassVar[bool] = False  # one sample a ray, on the first surface: for surface rendering
    uses_cache_only: ClassVar[bool] = False  # never asks the network, so the cache must know the field from the start

    def build(self) -> Sampler:
        """The sampler."""
        raise NotImplementedError
