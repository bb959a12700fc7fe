"""One training step: from random numbers to a loss. Everything in here compiles into one graph for CPU and for CUDA.

Follow a ray: pixel → ray → interval in the block → guided samples → field → NeuS weights → colour → loss, and for the
first rays of the batch on to the patch around the surface point and its look in other photos.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.train import losses
from stages.train.model import BlockModel
from stages.train.patch import best_views_loss, first_crossing, ncc, plane_points
from stages.train.photos import PhotoSet
from stages.train.sampler.box import box_interval
from stages.train.sampler.guided import guided_samples
from stages.train.sampler.outside import outside_samples
from stages.train.volume import Volume

PATCH_RADIUS = 5
PATCH_SOURCES = 4
PATCH_BEST = 2
PATCH_REJECT = 0.7
MIN_CONTRAST = 0.012  # standard deviation of a patch below which it is flat
TERMS = ("colour", "eikonal", "points", "free", "patch", "opacity")
STATS = (*TERMS, "patch_used")


class Batch(NamedTuple):
    """Inputs of a step, all tensors of fixed shape."""

    pixels: Int[Tensor, "rays 3"]
    jitter: Float[Tensor, "rays samples"]
    outside_jitter: Float[Tensor, "rays outside"]
    points: Float[Tensor, "points 3"]  # SfM points
    point_weight: Float[Tensor, "points"]
    free: Float[Tensor, "points 3"]  # points seen through
    free_margin: Float[Tensor, "points"]
    uniform: Float[Tensor, "points 3"]  # anywhere in the block
    source_draw: Float[Tensor, "patches s"]  # random order of source photos


class Schedule(NamedTuple):
    """What changes over training, as tensors so that nothing recompiles."""

    anneal: Tensor  # [] NeuS cosine anneal 0..1
    patch_level: Tensor  # [] int64 pyramid level of the patches
    term_weights: Tensor  # [len(TERMS)]


class Rays(NamedTuple):
    """Rays of a batch with their samples."""

    origins: Tensor
    directions: Tensor
    hits: Tensor
    distance: Tensor
    length: Tensor
    outside: Tensor


def place_samples(
    photos: PhotoSet,
    cache: Volume,
    half: Tensor,
    sharpness: Tensor,
    pixels: Tensor,
    jitter: Tensor,
    outside_jitter: Tensor,
) -> Rays:
    """Rays through pixels and where to sample them; no network evaluation, no gradient."""
    origins, directions = photos.rays(pixels[:, 0], pixels[:, 1:].float() + 0.5)
    directions = nn.functional.normalize(directions, dim=1)
    enter, leave, hits = box_interval(origins, directions, -half, half)
    distance, length = guided_samples(cache, origins, directions, enter, leave, sharpness, jitter)
    return Rays(origins, directions, hits, distance, length, outside_samples(leave, outside_jitter))


def loss_of(
    model: BlockModel, photos: PhotoSet, rays: Rays, batch: Batch, schedule: Schedule, colour: Tensor, weight: Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, "stats"], dict[str, Tensor]]:
    """Total loss, its terms (STATS, for the log), and what was rendered."""
    n_points = len(batch.points)
    more = torch.cat([batch.points, batch.free, batch.uniform])
    photo = batch.pixels[:, 0]
    out = model.render(
        rays.origins, rays.directions, photo, rays.distance, rays.length, rays.hits, rays.outside, schedule.anneal, more
    )
    patch, used = patch_loss(photos, rays, batch, out, schedule.patch_level)
    opacity = out["opacity"].clamp(1e-3, 1.0 - 1e-3)
    terms = torch.stack(
        [
            losses.colour_loss(out["colour"], colour, weight),
            losses.eikonal_loss(torch.cat([out["gradient"].reshape(-1, 3), out["more_gradient"]])),
            losses.surface_points_loss(out["more_sdf"][:n_points], batch.point_weight),
            losses.free_space_loss(out["more_sdf"][n_points : 2 * n_points], batch.free_margin),
            patch,
            -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean(),
        ]
    )
    return (terms * schedule.term_weights).sum(), torch.cat([terms, used[None]]).detach(), out


def patch_loss(
    photos: PhotoSet, rays: Rays, batch: Batch, out: dict[str, Tensor], level: Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """1 − NCC between the patch around each ray's pixel and its image in other photos, warped by the tangent plane."""
    n = len(batch.source_draw)
    photo, origin, direction = batch.pixels[:n, 0], rays.origins[:n], rays.directions[:n]
    distance, normal, found = first_crossing(out["sdf"][:n], rays.distance[:n], out["gradient"][:n])
    surface = origin + direction * distance[:, None]
    facing = -(normal * direction).sum(dim=1)

    side = torch.arange(-PATCH_RADIUS, PATCH_RADIUS + 1, device=origin.device)
    offset = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2).float()
    xy = batch.pixels[:n, None, 1:].float() + 0.5 + offset * torch.exp2(level.float())
    reference, inside = photos.gray_at(photo, xy, level)
    _, directions = photos.rays(photo, xy)
    points = plane_points(origin, directions, surface, normal)

    order = torch.where(photos.sources[photo] >= 0, batch.source_draw, -1.0).topk(PATCH_SOURCES, dim=1).indices
    source = photos.sources[photo].gather(1, order)
    flat = source.clamp(min=0).reshape(-1)
    repeated = points[:, None].expand(-1, PATCH_SOURCES, -1, -1).reshape(n * PATCH_SOURCES, -1, 3)
    seen_at, depth = photos.project(flat, repeated)
    other, other_inside = photos.gray_at(flat, seen_at, level)
    similarity = ncc(reference[:, None], other.view(n, PATCH_SOURCES, -1))

    reference = reference.detach()
    ahead = ((points - origin[:, None]) * direction[:, None]).sum(dim=2).amin(dim=1) > 0
    good = found & (facing > 0.15) & inside.all(dim=1) & (reference.std(dim=1) > MIN_CONTRAST) & rays.hits[:n] & ahead
    valid = good[:, None] & (source >= 0) & (other_inside & (depth > 1e-3)).all(dim=1).view(n, PATCH_SOURCES)
    return best_views_loss(1.0 - similarity, valid, PATCH_BEST, PATCH_REJECT)
