"""Trainer of one block: its batches, what a step does, the SDF cache, measurements, the state to save and restore."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.fields.checkpoint import find_mismatch
from quoin.fields.device import compile_function, mark_dynamic
from quoin.fields.field.sdf import SurfaceField
from quoin.fields.losses import TrainBatch
from quoin.fields.model import BlockModel
from quoin.fields.rays import RaySamples, RenderOutput
from quoin.fields.sdf_grids import map_chunks
from quoin.pipeline.core.errors import OutOfMemory, QuoinError
from quoin.pipeline.core.workers import out_of_memory_reason
from quoin.pipeline.imaging import labels
from quoin.stages.train.camera_refinement import REFINEMENT_START_SHARE
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.supervision import interior_points_behind
from quoin.stages.train.photoconsistency import extract_patches
from quoin.stages.train.step import (
    LOSS_STATS,
    N_PATCH_SOURCES,
    BatchSize,
    BlockData,
    FiniteCheck,
    LossSchedule,
    StepInputs,
    compute_loss,
    halve_batch_size,
    sample_rays,
)

LOG_INTERVAL_STEPS = 10  # steps between two readings of the loss, which wait for the device
WARM_UP_STEPS = 50  # steps over which learning rates rise
HALF_SIZE_PATCHES_SHARE = 0.25  # share of the training in which patches are compared at half size
SDF_CHUNK_POINTS_CPU = 1 << 13  # points whose SDF is evaluated together: what fits in a core's cache
SDF_CHUNK_POINTS_CUDA = 1 << 18  # what fills a GPU


class Trainer:
    """Trains a BlockModel on the data of a block. ``state_dict`` holds all that the same curve needs to continue."""

    def __init__(self, model: BlockModel, data: BlockData, config: TrainConfig, device: str, seed: int) -> None:
        self.model, self.data, self.config, self.device = model.to(device), data.to(device), config, device
        self.photos, self.cache, self.camera_refinement = self.data.photos, self.data.cache, self.data.cameras
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.skipped_share = 0, 0.0
        self.elapsed_s, self.budget_s = 0.0, math.inf
        self.batch_size = BatchSize(config.rays, config.points, min(config.patches, config.rays))
        self.warn: Callable[[str], None] = lambda message: None
        rates = config.lr
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            grid, surface = name.endswith("encoding.table"), name.startswith("surface.network")
            rate = rates.grid if grid else rates.surface if surface else rates.other
            groups.setdefault(rate, []).append(parameter)
        self._rates = list(groups)
        self.optimizer = torch.optim.Adam(
            [{"params": group, "lr": rate} for rate, group in groups.items()], betas=(0.9, 0.99), eps=1e-15, fused=True
        )
        small = [p for name, p in model.named_parameters() if not name.endswith("encoding.table")]
        if self.camera_refinement is not None:
            self.optimizer.add_param_group({"params": [self.camera_refinement.correction], "lr": rates.cameras})
            self._rates.append(rates.cameras)
            small.append(self.camera_refinement.correction)
            self.camera_refinement.write_to(self.photos)
            self.camera_refinement.mark_dynamic()
        self.finite_check = FiniteCheck(small, device)
        mark_dynamic(self.cache.values, 0, 1, 2)
        if self.model.surface.initial_sdf is not None:
            self.model.surface.initial_sdf.mark_dynamic()
        for name, buffer in self.photos.named_buffers():
            if name not in ("tiles", "tile_cdf", "held_out"):
                mark_dynamic(buffer, 0)
        mark_dynamic(self.model.appearance.table, 0)
        mark_dynamic(self.model.appearance.log_exposure, 0)
        self._anneal_share = config.renderer.anneal_share or 1.0
        self._loss = compile_function(compute_loss, device)
        self._place = compile_function(torch.no_grad()(sample_rays), device)
        self._patches = compile_function(torch.no_grad()(extract_patches), device)
        self._sdf = compile_function(torch.no_grad()(evaluate_sdf), device)

    @property
    def progress(self) -> float:
        """Progress of the training 0..1, by steps or by time, whichever is nearer its end."""
        return min(1.0, max(self.step / self.config.steps, self.elapsed_s / self.budget_s) + self.skipped_share)

    def seconds_left(self, per_step: float) -> float:
        """Seconds until the steps or the budget end, whichever is first."""
        whole = 1.0 - self.skipped_share
        left = min((whole * self.config.steps - self.step) * per_step, whole * self.budget_s - self.elapsed_s)
        return max(0.0, left)

    def skip_to(self, progress: float) -> None:
        """Leave out the part of the training before ``progress``."""
        self.skipped_share += max(0.0, progress - self.progress)

    # -- one step ----------------------------------------------------------------------------------------------------

    def train_step(self) -> dict[str, float] | None:
        """One optimizer step. Returns the loss terms at every 10th step (reading them waits for the device), else None.

        A step whose loss or gradient is not finite changes nothing. A step that runs out of memory halves the batch.
        """
        progress = self.progress
        if self.step % self.config.sdf_cache.refresh_every == 0 and self.step:
            self.refresh(near_only=True)
        self._set_progress(progress)
        self.optimizer.zero_grad(set_to_none=True)
        step_result = None
        try:
            step_result = self._backward(progress)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory_reason(error):
                raise
        if step_result is None:  # outside of the except clause, which would keep the tensors of the step
            self._reduce_batch_size()
            return None
        loss, terms, samples, out = step_result
        self.finite_check.check_gradients(loss, terms, self.optimizer)
        self.optimizer.step()
        if self.camera_refinement is not None:
            self.camera_refinement.write_to(self.photos)
        self.cache.update_nearest(
            samples.points().reshape(-1, 3),
            out.sdf.detach().reshape(-1),
            out.gradient.detach().reshape(-1, 3),
            samples.rays.hits[:, None].expand_as(samples.t).reshape(-1),
        )
        self.step += 1
        if self.step % LOG_INTERVAL_STEPS or not self.finite_check.check_last_step(self.step, self.warn):
            return None
        values = {"loss": float(loss), **dict(zip(LOSS_STATS, terms.tolist(), strict=True))}
        if self.model.renderer.is_volumetric:
            values["inv_s"] = float(self.model.renderer.inv_s().detach())
        values["samples_per_ray"] = float(samples.t.shape[1])
        return values

    def _backward(self, progress: float) -> tuple[Tensor, Tensor, RaySamples, RenderOutput]:
        """Draw a batch and compute the gradient of its loss; the loss, its terms, the samples and their rendering."""
        batch, schedule = self._batch(), self._schedule(progress)
        with torch.no_grad():
            samples, background_t = self._place(
                self.model, self.data, batch.pixels, batch.jitter, batch.background_jitter
            )
            first = batch.pixels[: self.batch_size.patches]
            patches = (
                self._patches(self.photos, first, batch.source_priority, schedule.patch_level, N_PATCH_SOURCES)
                if self.config.losses.photoconsistency > 0
                else None
            )
        inputs = StepInputs(samples, background_t, patches, batch, schedule)
        loss, terms, out = self._loss(self.model, self.data, inputs)
        loss.backward()
        return loss.detach(), terms, samples, out

    def _reduce_batch_size(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        smaller_size = halve_batch_size(self.batch_size)
        if smaller_size is None:
            raise OutOfMemory(
                f"Out of memory in a training step of {self.batch_size.rays} rays",
                hint="close other programs, make blocks smaller (partition.memory_gib), or use --device cpu",
            )
        self.warn(f"out of memory with {self.batch_size.rays} rays a step: continuing with {smaller_size.rays}")
        self.batch_size = smaller_size

    def _set_progress(self, progress: float) -> None:
        """Set the active levels of the encoding and the learning rates."""
        final = self.config.lr.final_factor
        active_levels = self.config.encoding.active_levels(progress)
        if active_levels is not None:
            self.model.surface.encoding.set_progress(active_levels)
        rate = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
        rate *= min(1.0, (self.step + 1) / WARM_UP_STEPS)
        for group, base in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        if self.camera_refinement is not None and progress < REFINEMENT_START_SHARE:
            self.optimizer.param_groups[-1]["lr"] = 0.0

    def _schedule(self, progress: float) -> LossSchedule:
        return LossSchedule(
            torch.tensor(min(1.0, progress / self._anneal_share), device=self.device),
            torch.tensor(1 if progress < HALF_SIZE_PATCHES_SHARE else 0, device=self.device),
            torch.tensor(self.config.losses.at(progress), device=self.device),
        )

    def _batch(self) -> TrainBatch:
        config, generator, supervision, batch_size = self.config, self.generator, self.data.supervision, self.batch_size

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(self.device)

        n = batch_size.points
        point = (rand(n) * len(supervision.points)).long().clamp(max=len(supervision.points) - 1)
        ray_index = (rand(n) * len(supervision.ray_depth)).long().clamp(max=len(supervision.ray_depth) - 1)
        near, end = supervision.ray_near[ray_index], supervision.ray_far[ray_index]
        depth = supervision.ray_depth[ray_index]
        u = rand(n)
        back = torch.where(torch.arange(n, device=self.device) % 2 == 0, 10.0 ** (-3.0 * u), u)
        at = end - (end - near) * back
        free_points = supervision.ray_origin[ray_index] + supervision.ray_direction[ray_index] * at[:, None]
        interior_points, interior_weight = None, None
        if config.losses.occupancy > 0:  # as dense near the surface as the even rows of ``free_points``
            even = ray_index[::2]
            ray = (supervision.ray_origin[even], supervision.ray_direction[even], depth[::2])
            interior_points, interior_weight = interior_points_behind(*ray, u[::2], self.data.half_extent)
        pixels = self.photos.draw_pixels(batch_size.rays, generator)
        color, color_weight = self.photos.colors(pixels)
        return TrainBatch(
            pixels=pixels,
            color=color,
            color_weight=color_weight,
            jitter=rand(batch_size.rays, self.model.sampler.n_jitter),
            background_jitter=rand(batch_size.rays, config.background.samples),
            points=supervision.points[point],
            point_weight=supervision.weight[point],
            point_normal=supervision.normal[point],
            free_points=free_points,
            free_margin=(0.2 * (depth - at)).clamp(max=0.02),
            uniform=(rand(n, 3) * 2.0 - 1.0) * self.data.half_extent,
            source_priority=rand(batch_size.patches, self.photos.sources.shape[1]),
            interior_points=interior_points,
            interior_weight=interior_weight,
            sky=self.photos.labels_at(pixels, labels.SKY)[:, 0] if config.losses.sky > 0 else None,
            semantic=None if self.model.semantic is None else self.photos.labels_at(pixels, *labels.SURFACE_LABELS),
        )

    # -- the SDF cache ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, near_only: bool) -> None:
        """Evaluate the network on the SDF cache: everywhere, or (of a distance) only near the surface."""
        rows = None
        if near_only and self.config.surface.is_distance:
            rows = torch.nonzero(self.cache.values.view(-1).abs() < 3.0 * self.cache.spacing)[:, 0]
        self.cache.refresh(self.sdf, rows)

    @torch.no_grad()
    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """SDF at any number of points, evaluated in chunks of a fixed size."""
        size = SDF_CHUNK_POINTS_CUDA if self.device.startswith("cuda") else SDF_CHUNK_POINTS_CPU
        return map_chunks(functools.partial(self._sdf, self.model.surface), points, size)

    # -- measuring ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def held_out_psnr(self, limit: int = 4096) -> float | None:
        """PSNR in dB over held-out pixels, never a target of the color loss; None without any, or without that loss."""
        pixels = self.photos.held_out
        if len(pixels) == 0 or not self.config.losses.has_color_loss:
            return None
        pixels = pixels[:: -(-len(pixels) // limit)]  # from all photos: pixels are ordered by photo
        error, count = 0.0, 0.0
        for part in pixels.split(self.batch_size.rays):
            rendered = self.render(part)[0].color.clamp(0.0, 1.0)
            truth, weight = self.photos.colors(part)
            error += float((((rendered - truth) ** 2).mean(dim=1) * weight).sum())
            count += float(weight.sum())
        return -10.0 * math.log10(max(error / max(count, 1.0), 1e-10))

    @torch.no_grad()
    def sfm_error(self) -> float | None:
        """Median |sdf| in the block's unit at its SfM points, or at every n-th where they are many; None without any.

        Training uses these points too: this measures how well they are fitted, not how true the surface is.
        """
        points = self.data.supervision.points[self.data.supervision.sfm > 0]
        points = points[:: -(-len(points) // SDF_CHUNK_POINTS_CPU) or 1]
        return float(self.sdf(points).abs().median()) if len(points) else None

    @torch.no_grad()
    def render(self, pixels: Tensor) -> tuple[RenderOutput, Bool[Tensor, "n"]]:
        """Rendering of pixels [n, 3] (photo, x, y), not compiled; and True where the ray meets the block."""
        n = len(pixels)
        jitter = torch.full((n, self.model.sampler.n_jitter), 0.5, device=self.device)
        background_jitter = torch.full((n, self.config.background.samples), 0.5, device=self.device)
        samples, background_t = sample_rays(self.model, self.data, pixels, jitter, background_jitter)
        no_points, anneal = torch.zeros(0, 3, device=self.device), torch.ones((), device=self.device)
        out = self.model.render(samples, background_t, self.model.appearance(pixels[:, 0]), anneal, no_points)
        return out, samples.rays.hits

    # -- saving and restoring ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue the same curve: weights, optimizer, SDF cache, random state, step."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.camera_refinement is not None:
            out["camera_refinement"] = self.camera_refinement.correction
        out["cache"] = self.cache.values
        out["generator"] = self.generator.get_state()
        out["step"] = torch.tensor(self.step)
        out["batch_size"] = torch.tensor(self.batch_size)
        out["skipped_share"] = torch.tensor(self.skipped_share, dtype=torch.float64)
        out["elapsed_s"] = torch.tensor(self.elapsed_s, dtype=torch.float64)
        for index, entry in self.optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                out[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``; QuoinError, before anything changes, where it belongs to another method or size."""
        expected = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("optimizer.")}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):  # those that never had a gradient have no entry either
            entry = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
            named = {f"optimizer.{number}.{name}": tensor for name, tensor in entry.items()}
            expected |= named if named.keys() & state.keys() else {}
        reason = find_mismatch(state, expected)
        if reason is not None:
            raise QuoinError(
                f"The checkpoint does not fit this configuration: {reason}", hint="train again with --force train"
            )
        self.model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        if self.camera_refinement is not None:
            self.camera_refinement.correction.data.copy_(state["camera_refinement"])
            self.camera_refinement.write_to(self.photos)
        self.cache.values.copy_(state["cache"])
        self.generator.set_state(state["generator"])
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        self.skipped_share = float(state["skipped_share"])
        self.batch_size = BatchSize(*state["batch_size"].tolist())
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                entries.setdefault(int(index), {})[name] = value
        packed = self.optimizer.state_dict()
        packed["state"] = entries
        self.optimizer.load_state_dict(packed)


def evaluate_sdf(surface: SurfaceField, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """``surface.sdf(points)``, as a function that compiles once for all blocks."""
    return surface.sdf(points)
