"""Surface-guided sampling: where along each ray the network is worth asking, without asking it.

A cached SDF volume is marched instead (NeuralRecon-W sec. 3.2 keeps a sparse cache for the same end); its weights make
a distribution from which few samples are drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.renderer.volume import weights_from_alpha
from quoin.fields.sampler.importance import sample_pdf
from quoin.fields.sampler.sections import points_along, section_lengths

N_MARCH_STEPS = 128
UNIFORM_SHARE = 0.15

ProposalAlpha = Callable[[Tensor, Tensor, Tensor], Tensor]  # opacity of sections, as ``Neus.guide``


def march_volume(
    volume: DenseSdf,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
) -> tuple[Float[Tensor, "rays edges"], Float[Tensor, "rays edges"]]:
    """Even distances from enter to leave, and the volume's SDF there."""
    edges = near[:, None] + (far - near)[:, None] * torch.linspace(0.0, 1.0, N_MARCH_STEPS + 1, device=origins.device)
    return edges, volume(points_along(origins, directions, edges).reshape(-1, 3)).view(edges.shape)


def guided_samples(
    volume: DenseSdf,
    proposal_alpha: ProposalAlpha,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
    jitter: Float[Tensor, "rays samples"],
    max_steps: float,
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"]]:
    """Distances [rays, samples] along the rays, ascending, and the lengths of the sections around them.

    ``jitter`` in [0, 1) places each sample inside its stratum of the cumulative distribution. The share UNIFORM_SHARE
    of the samples is spread evenly, so that what the volume does not know can still be found. A section is as long as
    ``max_steps`` steps of the march at most (``VolumeRenderer.most_steps``).
    """
    edges, sdf = march_volume(volume, origins, directions, near, far)
    weight = weights_from_alpha(proposal_alpha(sdf, (far - near)[:, None] / N_MARCH_STEPS, volume.spacing))
    # neighbours share the larger weight (mip-NeRF's blur-pool), for the volume may be off by a section
    padded = torch.nn.functional.pad(weight, (1, 1))
    weight = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 2:]), weight)
    total = weight.sum(dim=1, keepdim=True)
    share = weight * (1.0 - UNIFORM_SHARE) / total.clamp(min=1e-6) * total.clamp(max=1.0)
    t = sample_pdf(edges, share + (1.0 - share.sum(dim=1, keepdim=True)) / N_MARCH_STEPS, jitter)
    max_delta = max_steps * torch.maximum((far - near) / N_MARCH_STEPS, volume.spacing)
    return t, torch.minimum(section_lengths(t), max_delta[:, None])
