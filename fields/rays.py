"""Rays in a box and behind it, their samples, and what is rendered of them.

Distances t along a ray and lengths are in the block's unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class RaySegments:
    """Rays with the part of each that is looked at: the points origins + t · directions with near <= t <= far."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]  # unit vectors
    near: Float[Tensor, "rays"]
    far: Float[Tensor, "rays"]
    hits: Bool[Tensor, "rays"]  # False where the ray misses the block; near and far then mean nothing

    def __getitem__(self, index: slice | Tensor) -> RaySegments:
        """Some of the rays."""
        return RaySegments(
            self.origins[index], self.directions[index], self.near[index], self.far[index], self.hits[index]
        )

    def points(self, t: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples 3"]:
        """Points o + t·d."""
        return self.origins[:, None] + self.directions[:, None] * t[..., None]


@dataclass(frozen=True)
class RaySamples:
    """Samples of rays: their distances, ascending, and the lengths of the intervals that they stand for."""

    rays: RaySegments
    t: Float[Tensor, "rays samples"]
    deltas: Float[Tensor, "rays samples"]

    def points(self) -> Float[Tensor, "rays samples 3"]:
        """Points of the samples."""
        return self.rays.points(self.t)


@dataclass(frozen=True)
class RenderOutput:
    """Result of ``BlockModel.render``: field values, and sums over a ray's samples, weighted by how much each shows."""

    color: Float[Tensor, "rays 3"]  # with the background, times the photo's exposure
    block_color: Float[Tensor, "rays 3"]  # the part of ``color`` that comes from inside the block
    opacity: Float[Tensor, "rays"]  # of the block
    depth: Float[Tensor, "rays"]  # Σ w t: of the block, not divided by the opacity
    normal: Float[Tensor, "rays 3"]  # Σ w n
    sdf: Float[Tensor, "rays samples"]
    gradient: Float[Tensor, "rays samples 3"]
    extra_sdf: Float[Tensor, "extra"]  # at the extra points
    extra_gradient: Float[Tensor, "extra 3"]
    semantic_logits: Float[Tensor, "rays kinds"] | None = None  # where the model has a semantic head
    curvature: Float[Tensor, "points"] | None = None  # at all samples and extra points; of numerical gradients only


def intersect_ray_box(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], low: Tensor, high: Tensor
) -> RaySegments:
    """The part of each ray inside a box, at or after its origin (slab method)."""
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    a, b = (low - origins) * inverse, (high - origins) * inverse
    near = torch.minimum(a, b).amax(dim=1).clamp(min=0.0)
    far = torch.maximum(a, b).amin(dim=1)
    return RaySegments(origins, directions, near, torch.maximum(far, near), far > near + 1e-6)


def background_samples(
    far: Float[Tensor, "rays"], jitter: Float[Tensor, "rays samples"], nearest: float = 0.3
) -> Float[Tensor, "rays samples"]:
    """Distances behind the block, equidistant in the inverse of the distance from its far side (NeRF++ sec. 4)."""
    n_samples = jitter.shape[1]
    u = (torch.arange(n_samples, device=far.device) + jitter) / n_samples
    return far[:, None] + nearest * (1.0 / (1.0 - 0.99 * u) - 1.0)
