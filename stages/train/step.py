"""One training step, from random numbers to a loss. All of it compiles into one graph, on a CPU and with CUDA.

Pixels → rays → their segments in the block → samples → field → opacities → colors → loss terms; and for the first rays
of the batch the patch around the surface point, warped into other photos. Inputs that are None are not computed.
Outside the graph, a step is halved when memory is out, and skipped where its loss or gradient is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quoin.fields.losses import LOSS_TERMS, LossInputs, TrainBatch, weighted_loss
from quoin.fields.model import BlockModel
from quoin.fields.rays import RaySamples, RenderOutput, background_samples, intersect_ray_box
from quoin.fields.sampler.sections import first_surface
from quoin.fields.sdf_grids import DenseSdf
from quoin.pipeline.core.errors import QuoinError
from quoin.stages.train.camera_refinement import CameraRefinement, refine_patches
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.data.supervision import SfmSupervision
from quoin.stages.train.photoconsistency import Patches, best_views_loss, ncc, warp_patches

N_PATCH_SOURCES = 4
N_BEST_SOURCES = 2
MAX_DISSIMILARITY = 0.7
MIN_PATCH_COSINE = 0.15  # between a patch's normal and its ray: grazing patches say little
LOSS_STATS = (*(term.name for term in LOSS_TERMS), "photoconsistency_used")
MAX_NON_FINITE_STEPS = 20  # steps in a row without a finite loss and gradient before giving up


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


# -- size of a step ----------------------------------------------------------------------------------------------------


class BatchSize(NamedTuple):
    """Rays, points of each kind (surface, free, uniform) and rays with a patch of one step."""

    rays: int
    points: int
    patches: int


MIN_BATCH_SIZE = BatchSize(64, 16, 16)


def halve_batch_size(size: BatchSize) -> BatchSize | None:
    """Half of all numbers, at least MIN_BATCH_SIZE; None where that is not less."""
    half = BatchSize(*(max(n // 2, min(n, minimum)) for n, minimum in zip(size, MIN_BATCH_SIZE, strict=True)))
    return half if half.rays < size.rays else None


def reduce_batch_size(size: BatchSize, times: int) -> BatchSize:
    """``size`` halved ``times`` times, as far as possible."""
    for _ in range(times):
        size = halve_batch_size(size) or size
    return size


# -- steps that are not finite -----------------------------------------------------------------------------------------


class FiniteCheck:
    """Counts steps that are not finite on the device, without waiting for it; the host reads the counts now and then.

    ``parameters``: all but the large tables. What is not finite in the gradient of a table came through the network,
    and the gradient of each weight of the network is a sum over all points.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], device: str) -> None:
        self._parameters, self._warned = parameters, False
        self._bad, self._skipped = torch.zeros(2, dtype=torch.int64, device=device).unbind()
        self._is_non_finite = torch.zeros(len(LOSS_STATS) + 1, dtype=torch.bool, device=device)

    def check_gradients(self, loss: Tensor, terms: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Make the optimizer skip its next step if the loss or its gradient is not finite."""
        norms = torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None])
        gradient = torch.stack(norms).sum()
        good = torch.isfinite(loss + gradient)
        self._is_non_finite = torch.where(
            good, self._is_non_finite, ~torch.isfinite(torch.cat([terms, gradient[None]]))
        )
        self._bad = torch.where(good, 0, self._bad + 1)
        self._skipped = self._skipped + ~good
        optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it

    def check_last_step(self, step: int, warn: Callable[[str], None]) -> bool:
        """True if the last step was finite; QuoinError after many in a row that were not. Warns of the first."""
        bad, skipped = int(self._bad), int(self._skipped)
        if bad >= MAX_NON_FINITE_STEPS:
            raise QuoinError(
                f"Training diverged at step {step}: {self._non_finite_terms()} is not a finite number",
                hint="lower train.lr.grid, then quoin resume (the last checkpoint is intact)",
            )
        if skipped and not self._warned:
            warn(f"{self._non_finite_terms()} was not a finite number before step {step}: such steps are skipped")
            self._warned = True
        return bad == 0

    def _non_finite_terms(self) -> str:
        """Names of the loss terms that were not finite in the last such step, or else the gradient."""
        *terms, gradient = self._is_non_finite.tolist()
        names = [name for name, is_wrong in zip(LOSS_STATS, terms, strict=True) if is_wrong]
        return ", ".join(names or ["the gradient" if gradient else "the loss"])
