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
from quoin.fields.grids.dense_sdf import Volume
from quoin.fields.model import BlockModel
from quoin.fields.sampler.background_samples import outside_samples
from quoin.fields.sampler.base import Stretch
from quoin.fields.sampler.box import box_interval
from quoin.stages.train.camera_refinement import Cameras, follow
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.occupancy import occupancy_loss
from quoin.stages.train.photoconsistency import Patches, best_views_loss, first_crossing, ncc, seen_by_others

PATCH_SOURCES = 4
PATCH_BEST = 2
PATCH_REJECT = 0.7
MIN_COSINE = 0.15  # between a patch's normal and its ray: grazing ones say little
TERMS = (
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
STATS = (*TERMS, "patch_used")


class Batch(NamedTuple):
    """Inputs of a step, all tensors of fixed shape."""

    pixels: Int[Tensor, "rays 3"]
    jitter: Float[Tensor, "rays samples"]
    outside_jitter: Float[Tensor, "rays outside"]
    points: Float[Tensor, "points 3"]  # SfM points
    point_weight: Float[Tensor, "points"]
    point_normal: Float[Tensor, "points 3"]  # 0 where not known
    free: Float[Tensor, "points 3"]  # points seen through
    free_margin: Float[Tensor, "points"]
    uniform: Float[Tensor, "points 3"]  # anywhere in the block
    source_draw: Float[Tensor, "patches s"]  # random order of source photos
    behind: Float[Tensor, "behind 3"] | None  # points just behind known ones
    behind_weight: Float[Tensor, "behind"] | None
    sky: Float[Tensor, "rays"] | None = None  # 1 where a pixel shows sky
    kind: Float[Tensor, "rays kinds"] | None = None  # 1 of the kind of surface that a pixel shows, where that is known


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
    model: BlockModel,
    photos: PhotoSet,
    cache: Volume,
    half: Tensor,
    pixels: Tensor,
    jitter: Tensor,
    outside_jitter: Tensor,
) -> Rays:
    """Rays through pixels and where to sample them, without gradient."""
    origins, directions = photos.rays(pixels[:, 0], pixels[:, 1:].float() + 0.5)
    directions = nn.functional.normalize(directions, dim=1)
    enter, leave, hits = box_interval(origins, directions, -half, half)
    rays = Stretch(origins, directions, enter, leave, model.surface.sdf, model.renderer, cache)
    distance, length = model.sampler(rays, jitter)
    return Rays(origins, directions, hits, distance, length, outside_samples(leave, outside_jitter))


def loss_of(
    model: BlockModel,
    photos: PhotoSet,
    rays: Rays,
    patches: Patches | None,
    batch: Batch,
    schedule: Schedule,
    colour: Tensor,
    weight: Tensor,
    cameras: Cameras | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "stats"], dict[str, Tensor]]:
    """Total loss, its terms (STATS, for the log), and what was rendered. ``cameras``: where they are trained too."""
    n_points = len(batch.points)
    more = torch.cat([batch.points, batch.free, batch.uniform] + ([] if batch.behind is None else [batch.behind]))
    photo = batch.pixels[:, 0]
    out = model.render(
        rays.origins, rays.directions, photo, rays.distance, rays.length, rays.hits, rays.outside, schedule.anneal, more
    )
    terms = {}
    if patches is not None:
        centre = None
        if cameras is not None:
            patches, centre = follow(cameras, patches, photo[: len(patches.usable)])
        terms["patch"], terms["patch_used"] = patch_loss(photos, rays, patches, out, centre)
        if cameras is not None:
            terms["patch"] = terms["patch"] + cameras.prior()
    opacity = out["opacity"].clamp(1e-3, 1.0 - 1e-3)
    free = out["more_sdf"][n_points : 2 * n_points]
    terms |= {
        "colour": losses.colour_loss(out["colour"], colour, weight),
        "colour_squared": losses.colour_squared_loss(out["colour"], colour, weight),
        "eikonal": losses.eikonal_loss(torch.cat([out["gradient"].reshape(-1, 3), out["more_gradient"]])),
        "points": losses.surface_points_loss(out["more_sdf"][:n_points], batch.point_weight),
        "normals": losses.normals_loss(out["more_gradient"][:n_points], batch.point_normal, batch.point_weight),
        "free": losses.free_space_loss(free, batch.free_margin),
        "opacity": -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean(),
    }
    if batch.sky is not None:
        terms["sky"] = losses.sky_loss(out["opacity"], batch.sky, weight)
    if batch.kind is not None and model.layout is not None:
        _, normal, found = first_crossing(out["sdf"], rays.distance, out["gradient"])
        counts = weight * (found & rays.hits)
        terms["kind"] = losses.kind_loss(out["kinds"], batch.kind, weight)
        terms["layout"] = losses.layout_loss(out["kinds"], model.layout.tilt(normal), counts)
    if "curvature" in out:
        terms["curvature"] = losses.curvature_loss(out["curvature"])
    if batch.behind is not None:
        behind = out["more_sdf"][-len(batch.behind) :]
        terms["occupancy"] = labels_loss(free, behind, batch.behind_weight)
    stats = torch.stack([terms.get(name, colour.new_zeros(())) for name in STATS])
    return (stats[: len(TERMS)] * schedule.term_weights).sum(), stats.detach(), out


def labels_loss(
    free: Float[Tensor, "free"], behind: Float[Tensor, "behind"], behind_weight: Float[Tensor, "behind"]
) -> Float[Tensor, ""]:
    """The field as the logit of being empty: what was seen through is, what lies behind known points is not."""
    occupied = torch.arange(len(free) + len(behind), device=free.device) >= len(free)
    return occupancy_loss(-torch.cat([free, behind]), occupied, torch.cat([torch.ones_like(free), behind_weight]))


def patch_loss(
    photos: PhotoSet, rays: Rays, patches: Patches, out: dict[str, Tensor], centre: Float[Tensor, "n 3"] | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """1 − NCC between the patch around each ray's pixel and its image in other photos, warped by the tangent plane.

    ``centre`` of the photos, where it is trained: the plane stays when it moves away from the rays' origins.
    """
    n = len(patches.usable)
    distance, normal, found = first_crossing(out["sdf"][:n], rays.distance[:n], out["gradient"][:n])
    cosine = -(normal * rays.directions[:n]).sum(dim=1)
    height = -cosine * distance
    if centre is not None:
        height = height - (normal * (centre - rays.origins[:n])).sum(dim=1)
    seen, inside = seen_by_others(patches, photos.gray, height, normal)
    good = patches.usable & found & (cosine > MIN_COSINE) & rays.hits[:n]
    return best_views_loss(
        1.0 - ncc(patches.reference[:, None], seen), good[:, None] & inside, PATCH_BEST, PATCH_REJECT
    )
