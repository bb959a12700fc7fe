"""Gradients of a field by central differences of its values.

The analytic gradient of a grid at a point is that of one cell, and the eikonal loss changes that cell only. Differences
over a cell reach into the neighbors: they smooth, and many cells learn from one point (Neuralangelo sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def central_differences(
    value: Callable[[Tensor], Tensor],
    points: Float[Tensor, "n 3"],
    center_value: Float[Tensor, "n"],
    step: Float[Tensor, ""],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Gradient and Laplacian of ``value`` at points, from six values around each and ``center_value`` at the point.

    ∂f/∂xᵢ = (f(x + ε eᵢ) − f(x − ε eᵢ)) / 2ε and ∇²f = Σᵢ (f(x + ε eᵢ) − 2f(x) + f(x − ε eᵢ)) / ε², ε = ``step``
    (Neuralangelo eq. 3 and its supplement). Exact for quadratic f.
    """
    shift = step * torch.eye(3, device=points.device, dtype=points.dtype)[:, None]
    around = torch.cat([points + shift, points - shift]).reshape(-1, 3)
    ahead, behind = value(around).view(2, 3, -1).unbind(0)
    gradient = (ahead - behind).T / (2.0 * step)
    return gradient, (ahead + behind - 2.0 * center_value).sum(dim=0) / (step * step)
