"""One training step, from random numbers to a loss. All of it compiles into one graph, on a CPU and with CUDA.

Pixels → rays → their segments in the block → samples → field → opacities → colors → loss terms; and for the first rays
of the batch the patch around the surface point, warped into other photos. Inputs that are None are not computed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.losses import LOSS_TERMS, LossInputs, TrainBatch, weighted_loss
from quoin.fields.model import BlockModel
from quoin.fields.rays import RaySamples, RenderOutput
from quoin.fields.sampler.background_samples import background_samples
from quoin.fields.sampler.box import intersect_ray_box
from quoin.fields.sampler.sections import first_surface
from quoin.stages.train.camera_refinement import CameraRefinement, refine_patches
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.data.sfm_supervision import SfmSupervision
from quoin.stages.train.photoconsistency import Patches, best_views_loss, ncc, warp_patches

N_PATCH_SOURCES = 4
N_BEST_SOURCES = 2
MAX_DISSIMILARITY = 0.7
MIN_PATCH_COSINE = 0.15  # between a patch's normal and its ray: grazing patches say little
LOSS_STATS = (*(term.name for term in LOSS_TERMS), "photoconsistency_used")


class LossSchedule(NamedTuple):
    """What changes over training, as tensors so that nothing recompiles."""

    anneal: Tensor  # [] NeuS cosine anneal 0..1
    patch_level: Tensor  # [] int64 pyramid level of the patches
    weights: Tensor  # [len(LOSS_TERMS)]


class BlockData(NamedTuple):
    """What a block is trained with, beside its model."""

    photos: PhotoSet
    supervision: SfmSupervision
    cache: DenseSdf
    half_extent: Tensor  # [3]
    cameras: CameraRefinement | None = None  # where cameras are refined

    def to(self, device: str) -> BlockData:
        """The data on ``device``."""
        cameras = None if self.cameras is None else self.cameras.to(device)
        photos, cache, half_extent = self.photos.to(device), self.cache.to(device), self.half_extent.to(device)
        return BlockData(photos, self.supervision.to(device), cache, half_extent, cameras)


def sample_rays(
    model: BlockModel, data: BlockData, pixels: Tensor, jitter: Tensor, background_jitter: Tensor
) -> tuple[RaySamples, Float[Tensor, "rays background"]]:
    """Samples of the rays through pixels (photo, x, y), and distances of samples behind the block."""
    origins, directions = data.photos.rays(pixels[:, 0], pixels[:, 1:].float() + 0.5)
    directions = nn.functional.normalize(directions, dim=1)
    rays = intersect_ray_box(origins, directions, -data.half_extent, data.half_extent)
    return model.sample(rays, data.cache, jitter), background_samples(rays.far, background_jitter)


class StepInputs(NamedTuple):
    """What ``compute_loss`` renders and compares with."""

    samples: RaySamples
    background_t: Tensor  # [rays, background]
    patches: Patches | None
    batch: TrainBatch
    schedule: LossSchedule


def compute_loss(
    model: BlockModel, data: BlockData, step: StepInputs
) -> tuple[Float[Tensor, ""], Float[Tensor, "stats"], RenderOutput]:
    """Total loss, its terms (LOSS_STATS, for the log), and what was rendered."""
    batch, patches, photo, cameras = step.batch, step.patches, step.batch.pixels[:, 0], data.cameras
    condition = model.appearance(photo)
    out = model.render(step.samples, step.background_t, condition, step.schedule.anneal, batch.extra_points())
    photoconsistency, used = None, out.color.new_zeros(())
    if patches is not None:
        center = None
        if cameras is not None:
            patches, center = refine_patches(cameras, patches, photo[: len(patches.usable)])
        photoconsistency, used = photoconsistency_loss(data.photos, step.samples, patches, out, center)
        if cameras is not None:
            photoconsistency = photoconsistency + cameras.prior_loss()
    inputs = LossInputs(out, step.samples, batch, model.semantic, photoconsistency)
    loss, terms = weighted_loss(inputs, step.schedule.weights)
    return loss, torch.cat([terms, used.detach()[None]]), out


def photoconsistency_loss(
    photos: PhotoSet,
    samples: RaySamples,
    patches: Patches,
    out: RenderOutput,
    center: Float[Tensor, "n 3"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """1 − NCC between the patch around each ray's pixel and its image in other photos; and the share of views used.

    The patch is warped by the tangent plane of the surface. ``center`` of the photos, where it is refined: the plane
    stays when it moves away from the rays' origins.
    """
    n = len(patches.usable)
    rays = samples.rays
    t, normal, has_surface = first_surface(out.sdf[:n], samples.t[:n], out.gradient[:n])
    cosine = -(normal * rays.directions[:n]).sum(dim=1)
    height = -cosine * t
    if center is not None:
        height = height - (normal * (center - rays.origins[:n])).sum(dim=1)
    warped, inside = warp_patches(patches, photos.gray, height, normal)
    good = patches.usable & has_surface & (cosine > MIN_PATCH_COSINE) & rays.hits[:n]
    return best_views_loss(
        1.0 - ncc(patches.reference[:, None], warped), good[:, None] & inside, N_BEST_SOURCES, MAX_DISSIMILARITY
    )
