"""The stretch of a ray inside a box."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def intersect_ray_box(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], low: Tensor, high: Tensor
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays"], Tensor]:
    """Where rays enter and leave a box (slab method), at or after their origin; and whether they do at all."""
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    a, b = (low - origins) * inverse, (high - origins) * inverse
    near = torch.minimum(a, b).amax(dim=1).clamp(min=0.0)
    far = torch.maximum(a, b).amin(dim=1)
    return near, torch.maximum(far, near), far > near + 1e-6
