"""Samples of rays behind the block."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def background_samples(
    far: Float[Tensor, "rays"], jitter: Float[Tensor, "rays samples"], nearest: float = 0.3
) -> Float[Tensor, "rays samples"]:
    """Distances behind the block, equidistant in the inverse of the distance from its far side (NeRF++ sec. 4)."""
    n_samples = jitter.shape[1]
    u = (torch.arange(n_samples, device=far.device) + jitter) / n_samples
    return far[:, None] + nearest * (1.0 / (1.0 - 0.99 * u) - 1.0)
