"""Samples around a surface that is already known, on rays cut to where SfM saw something (NeuralRecon-W sec. 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from quoin.fields.sampler.sections import points_along
from quoin.fields.sampler.stratified import stratified_samples


def window_samples(
    surface: Float[Tensor, "rays"],
    has_surface: Bool[Tensor, "rays"],
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
    half_width: Float[Tensor, ""],
    jitter: Float[Tensor, "rays samples"],
    n_boundary: int = 5,
) -> Float[Tensor, "rays samples"]:
    """Distances, ascending: even in the window ``surface`` ± ``half_width``, and ``n_boundary`` each before and after.

    ``surface`` is the cached distance of the surface, between near and far; where it was not ``has_surface`` all
    samples are even in near..far. NeuralRecon-W takes 8 in the window, 5 on each side, and 2 × 8 more by
    ``neus_upsample(..., rounds=2, per_round=8, sharpness=512.0)``. Its official renderer.py up-samples before it adds
    the sides; here the sides are seen too, so that samples can leave a window that is out of date.
    """
    low = torch.minimum(torch.maximum(surface - half_width, near), far)
    high = torch.minimum(torch.maximum(surface + half_width, near), far)
    parts = jitter.split([n_boundary, jitter.shape[1] - 2 * n_boundary, n_boundary], dim=1)
    segments = ((near, low), (low, high), (high, far))
    around = [stratified_samples(*segment, part)[0] for segment, part in zip(segments, parts, strict=True)]
    return torch.where(has_surface[:, None], torch.cat(around, dim=1), stratified_samples(near, far, jitter)[0])


def occupied_interval(
    occupied: Bool[Tensor, "x y z"],
    low: Float[Tensor, "3"],
    spacing: Float[Tensor, ""],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
    n_march: int = 128,
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """The stretch of near..far from the first to the last occupied voxel and one voxel on; and whether there is any.

    Voxel (i, j, k) begins at low + spacing·(i, j, k). It is marched in ``n_march`` even steps, and the stretch is one
    step longer at both ends than what they hit; steps longer than a voxel may miss one. Rays that hit none keep near
    and far.
    """
    step = ((far - near) / n_march)[:, None]
    t = near[:, None] + step * (torch.arange(n_march, device=near.device) + 0.5)
    index = ((points_along(origins, directions, t) - low) / spacing).floor().long().unbind(dim=2)
    i, j, k = (part.clamp(0, size - 1) for part, size in zip(index, occupied.shape, strict=True))
    inside = (i == index[0]) & (j == index[1]) & (k == index[2])
    hit = occupied[i, j, k] & inside
    first = torch.where(hit, t - step, far[:, None]).amin(dim=1)
    last = torch.where(hit, t + step + spacing, near[:, None]).amax(dim=1)
    hits = hit.any(dim=1)
    return torch.where(hits, torch.maximum(first, near), near), torch.where(hits, torch.minimum(last, far), far), hits


def occupied_voxels(
    points: Float[Tensor, "points 3"], low: Float[Tensor, "3"], spacing: Float[Tensor, ""], shape: tuple[int, int, int]
) -> Bool[Tensor, "x y z"]:
    """Voxels that hold a point, and their 26 neighbours each. Eager only.

    For ``occupied_interval``, from the points of SfM that are seen in many photos.
    """
    bordered = torch.tensor(shape, device=points.device) + 2
    index = ((points - low) / spacing).floor().long() + 1
    i, j, k = index[((index >= 0) & (index < bordered)).all(dim=1)].unbind(dim=1)
    holds = torch.zeros([size + 2 for size in shape], device=points.device)
    holds[i, j, k] = 1.0
    return functional.max_pool3d(holds[None, None], kernel_size=3, stride=1)[0, 0] > 0
