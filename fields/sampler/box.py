"""Ray–box intersection."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.rays import RaySegments


def intersect_ray_box(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], low: Tensor, high: Tensor
) -> RaySegments:
    """The part of each ray inside a box, at or after its origin (slab method)."""
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    a, b = (low - origins) * inverse, (high - origins) * inverse
    near = torch.minimum(a, b).amax(dim=1).clamp(min=0.0)
    far = torch.maximum(a, b).amin(dim=1)
    return RaySegments(origins, directions, near, torch.maximum(far, near), far > near + 1e-6)
