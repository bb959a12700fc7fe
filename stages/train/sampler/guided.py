"""Surface-guided sampling: where along each ray the network is worth asking, without asking it.

A cached SDF volume is marched instead (NeuralRecon-W sec. 3.2 keeps a sparse cache for the same end); its NeuS weights
make a distribution from which few samples are drawn.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stages.train.renderer.volume import weights
from stages.train.volume import Volume


def guided_samples(
    volume: Volume,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    enter: Float[Tensor, "rays"],
    leave: Float[Tensor, "rays"],
    sharpness: Float[Tensor, ""],
    jitter: Float[Tensor, "rays samples"],
    n_march: int = 128,
    explore: float = 0.15,
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples"]]:
    """Distances [rays, samples] along the rays, ascending, and the lengths of the sections around them.

    ``jitter`` in [0, 1) places each sample inside its stratum of the cumulative distribution. ``explore`` is the share
    of samples spread evenly, so that what the volume does not know can still be found.
    """
    n_rays = len(origins)
    grid = torch.linspace(0.0, 1.0, n_march + 1, device=origins.device)
    span = (leave - enter)[:, None]
    edges = enter[:, None] + span * grid
    points = origins[:, None] + directions[:, None] * edges[..., None]
    sdf = volume(points.reshape(-1, 3)).view(n_rays, n_march + 1)
    # a logistic no sharper than the volume can place: about one of its cells
    width = torch.maximum(span / n_march, volume.spacing)
    cumulative = torch.sigmoid(sdf * torch.minimum(sharpness, 2.0 / width))
    alpha = ((cumulative[:, :-1] - cumulative[:, 1:] + 1e-6) / (cumulative[:, :-1] + 1e-6)).clamp(0.0, 1.0)
    weight = weights(alpha)
    # neighbours share the larger weight (mip-NeRF's blur-pool), for the volume may be off by a section
    padded = torch.nn.functional.pad(weight, (1, 1))
    weight = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 2:]), weight)
    total = weight.sum(dim=1, keepdim=True)
    share = weight * (1.0 - explore) / total.clamp(min=1e-6) * total.clamp(max=1.0)
    pdf = share + (1.0 - share.sum(dim=1, keepdim=True)) / n_march
    cdf = torch.nn.functional.pad(torch.cumsum(pdf, dim=1), (1, 0))
    n_samples = jitter.shape[1]
    wanted = (torch.arange(n_samples, device=origins.device) + jitter) / n_samples * cdf[:, -1:]
    right = torch.searchsorted(cdf, wanted.contiguous(), right=True).clamp(1, n_march)
    low, high = cdf.gather(1, right - 1), cdf.gather(1, right)
    fraction = (wanted - low) / (high - low).clamp(min=1e-9)
    distance = enter[:, None] + span * ((right - 1) + fraction.clamp(0.0, 1.0)) / n_march
    middle = 0.5 * (distance[:, 1:] + distance[:, :-1])
    bounds = torch.cat([2.0 * distance[:, :1] - middle[:, :1], middle, 2.0 * distance[:, -1:] - middle[:, -1:]], dim=1)
    return distance, bounds[:, 1:] - bounds[:, :-1]
