"""One training step: from random numbers to a loss. Everything in here compiles into one graph for CPU and for CUDA.

Follow a ray: pixel → ray → interval in the block → guided samples → field → NeuS weights → colour → loss, and for the
first rays of the batch on to the patch around the surface point and its look in other photos. What a method has no use
for is None, and is not computed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quoin.fields import losses
from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.model import BlockModel
from quoin.fields.sampler.background_samples import background_samples
from quoin.fields.sampler.base import RaySegments
from quoin.fields.sampler.box import intersect_ray_box
from quoin.stages.train.camera_refinement import CameraRefinement, refine_patches
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.occupancy import occupancy_loss
from quoin.stages.train.photoconsistency import Patches, best_views_loss, first_crossing, ncc, warp_patches

N_PATCH_SOURCES = 4
N_BEST_SOURCES = 2
MAX_DISSIMILARITY = 0.7
MIN_PATCH_COSINE = 0.15  # between a patch's normal and its ray: grazing ones say little
LOSS_TERMS = (
    "colour",
    "colour_squared",
    "eikonal",
    "points",
    "free",
    "patch",
    "opacity",
    "curvature",
    "occupancy",
    "sky",
    "kind",
    "layout",
    "normals",
)
LOSS_STATS = (*LOSS_TERMS, "patch_used")


class TrainBatch(NamedTuple):
    """Inputs of a step, all tensors of fixed shape."""

    pixels: Int[Tensor, "rays 3"]
    jitter: Float[Tensor, "rays samples"]
    background_jitter: Float[Tensor, "rays outside"]
    points: Float[Tensor, "points 3"]  # SfM points
    point_weight: Float[Tensor, "points"]
    point_normal: Float[Tensor, "points 3"]  # 0 where not known
    free_points: Float[Tensor, "points 3"]  # points seen through
    free_margin: Float[Tensor, "points"]
    uniform: Float[Tensor, "points 3"]  # anywhere in the block
    source_priority: Float[Tensor, "patches s"]  # random order of source photos
    interior_points: Float[Tensor, "behind 3"] | None  # points just behind known ones
    interior_weight: Float[Tensor, "behind"] | None
    sky: Float[Tensor, "rays"] | None = None  # 1 where a pixel shows sky
    semantic: Float[Tensor, "rays kinds"] | None = (
        None  # 1 of the kind of surface that a pixel shows, where that is known
    )


class LossSchedule(NamedTuple):
    """What changes over training, as tensors so that nothing recompiles."""

    anneal: Tensor  # [] NeuS cosine anneal 0..1
    patch_level: Tensor  # [] int64 pyramid level of the patches
    term_weights: Tensor  # [len(LOSS_TERMS)]


class RaySamples(NamedTuple):
    """Rays of a batch with their samples."""

    origins: Tensor
    directions: Tensor
    hits: Tensor
    t: Tensor
    deltas: Tensor
    background_t: Tensor


def sample_rays(
    model: BlockModel,
    photos: PhotoSet,
    cache: DenseSdf,
    half_extent: Tensor,
    pixels: Tensor,
    jitter: Tensor,
    background_jitter: Tensor,
) -> RaySamples:
    """Rays through pixels and where to sample them, without gradient."""
    origins, directions = photos.rays(pixels[:, 0], pixels[:, 1:].float() + 0.5)
    directions = nn.functional.normalize(directions, dim=1)
    near, far, hits = intersect_ray_box(origins, directions, -half_extent, half_extent)
    rays = RaySegments(origins, directions, near, far, model.surface.sdf, model.renderer, cache)
    t, deltas = model.sampler(rays, jitter)
    return RaySamples(origins, directions, hits, t, deltas, background_samples(far, background_jitter))


def compute_loss(
    model: BlockModel,
    photos: PhotoSet,
    rays: RaySamples,
    patches: Patches | None,
    batch: TrainBatch,
    schedule: LossSchedule,
    color: Tensor,
    weight: Tensor,
    cameras: CameraRefinement | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "stats"], dict[str, Tensor]]:
    """Total loss, its terms (LOSS_STATS, for the log), and what was rendered. ``cameras``: where they are trained
    too."""
    n_points = len(batch.points)
    extra_points = torch.cat(
        [batch.points, batch.free_points, batch.uniform]
        + ([] if batch.interior_points is None else [batch.interior_points])
    )
    photo = batch.pixels[:, 0]
    out = model.render(
        rays.origins,
        rays.directions,
        photo,
        rays.t,
        rays.deltas,
        rays.hits,
        rays.background_t,
        schedule.anneal,
        extra_points,
    )
    terms = {}
    if patches is not None:
        center = None
        if cameras is not None:
            patches, center = refine_patches(cameras, patches, photo[: len(patches.usable)])
        terms["patch"], terms["patch_used"] = photoconsistency_loss(photos, rays, patches, out, center)
        if cameras is not None:
            terms["patch"] = terms["patch"] + cameras.prior_loss()
    opacity = out["opacity"].clamp(1e-3, 1.0 - 1e-3)
    free_points = out["extra_sdf"][n_points : 2 * n_points]
    terms |= {
        "colour": losses.color_loss(out["color"], color, weight),
        "colour_squared": losses.color_squared_loss(out["color"], color, weight),
        "eikonal": losses.eikonal_loss(torch.cat([out["gradient"].reshape(-1, 3), out["extra_gradient"]])),
        "points": losses.surface_points_loss(out["extra_sdf"][:n_points], batch.point_weight),
        "normals": losses.normals_loss(out["extra_gradient"][:n_points], batch.point_normal, batch.point_weight),
        "free": losses.free_space_loss(free_points, batch.free_margin),
        "opacity": -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean(),
    }
    if batch.sky is not None:
        terms["sky"] = losses.sky_loss(out["opacity"], batch.sky, weight)
    if batch.semantic is not None and model.layout is not None:
        _, normal, found = first_crossing(out["sdf"], rays.t, out["gradient"])
        counted = weight * (found & rays.hits)
        terms["kind"] = losses.semantic_loss(out["semantic_logits"], batch.semantic, weight)
        terms["layout"] = losses.manhattan_loss(out["semantic_logits"], model.layout.manhattan_error(normal), counted)
    if "curvature" in out:
        terms["curvature"] = losses.curvature_loss(out["curvature"])
    if batch.interior_points is not None:
        interior_points = out["extra_sdf"][-len(batch.interior_points) :]
        terms["occupancy"] = free_space_occupancy_loss(free_points, interior_points, batch.interior_weight)
    stats = torch.stack([terms.get(name, color.new_zeros(())) for name in LOSS_STATS])
    return (stats[: len(LOSS_TERMS)] * schedule.term_weights).sum(), stats.detach(), out


def free_space_occupancy_loss(
    free_points: Float[Tensor, "free"],
    interior_points: Float[Tensor, "behind"],
    interior_weight: Float[Tensor, "behind"],
) -> Float[Tensor, ""]:
    """The field as the logit of being empty: what was seen through is, what lies behind known points is not."""
    occupied = torch.arange(len(free_points) + len(interior_points), device=free_points.device) >= len(free_points)
    return occupancy_loss(
        -torch.cat([free_points, interior_points]), occupied, torch.cat([torch.ones_like(free_points), interior_weight])
    )


def photoconsistency_loss(
    photos: PhotoSet,
    rays: RaySamples,
    patches: Patches,
    out: dict[str, Tensor],
    center: Float[Tensor, "n 3"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """1 − NCC between the patch around each ray's pixel and its image in other photos, warped by the tangent plane.

    ``center`` of the photos, where it is trained: the plane stays when it moves away from the rays' origins.
    """
    n = len(patches.usable)
    t, normal, found = first_crossing(out["sdf"][:n], rays.t[:n], out["gradient"][:n])
    cosine = -(normal * rays.directions[:n]).sum(dim=1)
    height = -cosine * t
    if center is not None:
        height = height - (normal * (center - rays.origins[:n])).sum(dim=1)
    warped, inside = warp_patches(patches, photos.gray, height, normal)
    good = patches.usable & found & (cosine > MIN_PATCH_COSINE) & rays.hits[:n]
    return best_views_loss(
        1.0 - ncc(patches.reference[:, None], warped), good[:, None] & inside, N_BEST_SOURCES, MAX_DISSIMILARITY
    )
