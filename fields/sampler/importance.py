"""Samples where they count: by the weights of coarser samples (NeRF), or of the surface they suggest (NeuS)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quoin.fields.renderer.neus import neus_alpha
from quoin.fields.renderer.volume import weights_from_alpha as weights_of
from quoin.fields.sampler.sections import points_along, sections_between


def sample_pdf(
    edges: Float[Tensor, "rays edges"],
    weights: Float[Tensor, "rays edges-1"],
    jitter: Float[Tensor, "rays samples"],
) -> Float[Tensor, "rays samples"]:
    """Distances drawn from a density that is constant in each section between ascending edges (NeRF sec. 5.2).

    A section gets samples in proportion to its weight. ``jitter`` places each sample inside its stratum of the
    cumulative distribution, so they ascend; 0.5 makes them deterministic. A weight of 1e-5 is spread over the whole
    ray, so that one without any is sampled evenly.
    """
    span = edges[:, -1:] - edges[:, :1]
    mass = weights + 1e-5 * edges.diff(dim=1) / span.clamp(min=1e-9)
    cumulative = functional.pad(torch.cumsum(mass, dim=1), (1, 0))
    n_samples = jitter.shape[1]
    quantiles = (torch.arange(n_samples, device=edges.device) + jitter) / n_samples * cumulative[:, -1:]
    right = torch.searchsorted(cumulative, quantiles, right=True).clamp(1, weights.shape[1])
    low, high = cumulative.gather(1, right - 1), cumulative.gather(1, right)
    fraction = ((quantiles - low) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
    return torch.lerp(edges.gather(1, right - 1), edges.gather(1, right), fraction)


def merge_sorted(distance_a: Float[Tensor, "rays a"], distance_b: Float[Tensor, "rays b"]) -> Float[Tensor, "rays a+b"]:
    """All distances of both, ascending."""
    return torch.cat([distance_a, distance_b], dim=1).sort(dim=1).values


def merge_samples(
    t: Float[Tensor, "rays a"],
    sdf: Float[Tensor, "rays a"],
    more: Float[Tensor, "rays b"],
    more_sdf: Float[Tensor, "rays b"],
) -> tuple[Float[Tensor, "rays a+b"], Float[Tensor, "rays a+b"]]:
    """As ``merge_sorted``, with the values at the distances put into the same order."""
    merged, order = torch.cat([t, more], dim=1).sort(dim=1)
    return merged, torch.cat([sdf, more_sdf], dim=1).gather(1, order)


def sdf_along(
    sdf: Callable[[Tensor], Tensor],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    t: Float[Tensor, "rays samples"],
) -> Float[Tensor, "rays samples"]:
    """``sdf(points [n, 3]) -> [n]`` at all samples."""
    return sdf(points_along(origins, directions, t).reshape(-1, 3)).view(t.shape)


@torch.no_grad()
def neus_upsample(
    sdf: Callable[[Tensor], Tensor],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    t: Float[Tensor, "rays samples"],
    rounds: int = 4,
    per_round: int = 16,
    inv_s: float = 64.0,
) -> Float[Tensor, "rays more"]:
    """``t`` and in each round ``per_round`` more, drawn from the NeuS weights that the SDF so far suggests.

    NeuS sec. 4.1 "hierarchical sampling", constants of its official renderer.py (up_sample): 1/s = ``inv_s``·2ⁱ in
    round i whatever the field has learnt, 64 … 512 (NeuralRecon-W: 512 and 1024, 8 samples each). ``sdf`` maps points
    [n, 3] to [n] and is asked ``samples + per_round·(rounds − 1)`` times a ray. Ascending; no gradient.
    """
    middle = t.new_full((len(t), per_round), 0.5)
    value = sdf_along(sdf, origins, directions, t)
    for i in range(rounds):
        more = sample_pdf(t, _upsampling_weights(t, value, inv_s * 2.0**i), middle)
        if i + 1 == rounds:
            return merge_sorted(t, more)
        t, value = merge_samples(t, value, more, sdf_along(sdf, origins, directions, more))
    return t


def _upsampling_weights(
    t: Float[Tensor, "rays edges"], sdf: Float[Tensor, "rays edges"], inv_s: float
) -> Float[Tensor, "rays edges-1"]:
    """NeuS weights of the sections between samples, their slopes taken from the differences of the SDF.

    The steeper descent of a section and the one before it counts: a section just behind a surface may show none.
    """
    deltas = sections_between(t)[1]
    slope = sdf.diff(dim=1) / (deltas + 1e-5)
    steeper = torch.minimum(slope, functional.pad(slope[:, :-1], (1, 0))).clamp(-1e3, 0.0)
    middle = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    return weights_of(neus_alpha(middle, steeper, deltas, sdf.new_full((), inv_s), sdf.new_ones(())))
