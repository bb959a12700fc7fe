"""Stratified samples."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.sampler.sections import section_lengths


def stratified_samples(
    near: Float[Tensor, "rays"], far: Float[Tensor, "rays"], jitter: Float[Tensor, "rays samples"]
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"]]:
    """Distances, one in each of ``samples`` equal strata of near..far, and the lengths of the intervals around them.

    tᵢ = near + (far − near)(i + jitterᵢ)/n (NeRF eq. 2). One jitter [rays, 1] expanded to all samples keeps them
    equidistant, as NeuS does.
    """
    n_samples = jitter.shape[1]
    share = (torch.arange(n_samples, device=jitter.device) + jitter) / n_samples
    t = near[:, None] + (far - near)[:, None] * share
    return t, section_lengths(t)
