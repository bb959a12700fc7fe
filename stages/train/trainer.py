"""The training loop of one block: draws batches, steps, keeps the cached volume fresh, measures, stops and goes on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.batching import map_chunks
from quoin.fields.compile import compile_function, mark_dynamic
from quoin.fields.field.sdf import SurfaceField
from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.model import BlockModel
from quoin.fields.renderer.volume import VolumeRenderer
from quoin.fields.sampler.sections import points_along
from quoin.pipeline.core.errors import OutOfMemory, QuoinError
from quoin.pipeline.imaging import labels
from quoin.stages.train import checkpoint
from quoin.stages.train.batch_size import BatchSize, halve_batch_size, is_out_of_memory
from quoin.stages.train.camera_refinement import REFINEMENT_START_SHARE, CameraRefinement
from quoin.stages.train.config import HashEncodingConfig, NeusRendererConfig, TrainConfig
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.data.sfm_supervision import SfmSupervision
from quoin.stages.train.finite_check import FiniteCheck
from quoin.stages.train.occupancy import interior_points_behind
from quoin.stages.train.photoconsistency import extract_patches
from quoin.stages.train.step import (
    LOSS_STATS,
    LOSS_TERMS,
    N_PATCH_SOURCES,
    LossSchedule,
    RaySamples,
    TrainBatch,
    compute_loss,
    sample_rays,
)

CURVATURE_WARM_UP_SHARE = 0.01  # share of the steps (Neuralangelo: 5,000 of 500,000)
LOG_INTERVAL_STEPS = 10  # steps between two readings of numbers, for which the device must be waited
SDF_CHUNK_POINTS_CPU, SDF_CHUNK_POINTS_CUDA = (
    1 << 13,
    1 << 18,
)  # points asked for their SDF at once: what fits in a core's cache, or fills a GPU


class Trainer:
    """Trains a BlockModel on a PhotoSet. ``state`` / ``load_state_dict`` carry everything that makes the same curve go
    on."""

    def __init__(
        self,
        model: BlockModel,
        photos: PhotoSet,
        supervision: SfmSupervision,
        cache: DenseSdf,
        half_extent: Float[Tensor, "3"],
        config: TrainConfig,
        device: str,
        seed: int,
        cameras: CameraRefinement | None = None,
    ) -> None:
        self.cameras = None if cameras is None else cameras.to(device)
        self.model, self.photos, self.cache = model.to(device), photos.to(device), cache.to(device)
        self.supervision, self.half_extent, self.config, self.device = (
            supervision.to(device),
            half_extent.to(device),
            config,
            device,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.skipped_share = 0, 0.0
        self.spent_s, self.budget_s = 0.0, math.inf
        self.batch_size = BatchSize(config.rays, config.points, min(config.patches, config.rays))
        self.warn: Callable[[str], None] = lambda message: None
        rates = config.rates
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            grid, surface = name.endswith("encoding.table"), name.startswith("surface.network")
            rate = rates.grid if grid else rates.surface if surface else rates.colour
            groups.setdefault(rate, []).append(parameter)
        self._rates = list(groups)
        self.optimizer = torch.optim.Adam(
            [{"params": group, "lr": rate} for rate, group in groups.items()], betas=(0.9, 0.99), eps=1e-15, fused=True
        )
        small = [p for name, p in model.named_parameters() if not name.endswith("encoding.table")]
        if self.cameras is not None:
            self.optimizer.add_param_group({"params": [self.cameras.correction], "lr": config.rates.cameras})
            self._rates.append(config.rates.cameras)
            small.append(self.cameras.correction)
            self.cameras.write_to(self.photos)
            self.cameras.mark_dynamic()
        self.finite_check = FiniteCheck(small, device)
        mark_dynamic(self.cache.values, 0, 1, 2)
        if self.model.surface.base is not None:
            self.model.surface.base.mark_dynamic()
        for name, buffer in self.photos.named_buffers():
            if name not in ("tiles", "tile_cdf", "held_out"):
                mark_dynamic(buffer, 0)
        mark_dynamic(self.model.appearance.table, 0)
        mark_dynamic(self.model.appearance.known, 0)
        self._anneal = config.renderer.anneal if isinstance(config.renderer, NeusRendererConfig) else 1.0
        self._loss = compile_function(compute_loss, device)
        self._place = compile_function(torch.no_grad()(sample_rays), device)
        self._patches = compile_function(torch.no_grad()(extract_patches), device)
        self._sdf = compile_function(torch.no_grad()(evaluate_sdf), device)

    @property
    def progress(self) -> float:
        """How much of the training is done, 0..1, by steps or by time, whichever is nearer its end."""
        return min(1.0, max(self.step / self.config.steps, self.spent_s / self.budget_s) + self.skipped_share)

    def seconds_left(self, per_step: float) -> float:
        """Until the steps or the budget end, whichever is first, at so many seconds a step."""
        whole = 1.0 - self.skipped_share
        left = min((whole * self.config.steps - self.step) * per_step, whole * self.budget_s - self.spent_s)
        return max(0.0, left)

    def skip_to(self, progress: float) -> None:
        """Leave out the part of the training before ``share``."""
        self.skipped_share += max(0.0, progress - self.progress)

    # -- one step ----------------------------------------------------------------------------------------------------

    def train_step(self) -> dict[str, float] | None:
        """One optimiser step. Returns the loss terms every 10th step (reading them waits for the device), else None.

        A step whose loss or gradient is not finite changes nothing. One that memory does not suffice for is taken again
        with half of everything.
        """
        progress = self.progress
        if self.step % self.config.cache.refresh_every == 0 and self.step:
            self.refresh(near_only=True)
        self._set_progress(progress)
        self.optimizer.zero_grad(set_to_none=True)
        step_result = None
        try:
            step_result = self._backward(progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if step_result is None:  # out of the except clause, which would keep what the step had made
            self._reduce_batch_size()
            return None
        loss, terms, rays, out = step_result
        self.finite_check.check_gradients(loss, terms, self.optimizer)
        self.optimizer.step()
        if self.cameras is not None:
            self.cameras.write_to(self.photos)
        points = points_along(rays.origins, rays.directions, rays.t)
        self.cache.update_nearest(
            points.reshape(-1, 3),
            out["sdf"].detach().reshape(-1),
            out["gradient"].detach().reshape(-1, 3),
            rays.hits[:, None].expand_as(rays.t).reshape(-1),
        )
        self.step += 1
        if self.step % LOG_INTERVAL_STEPS or not self.finite_check.check_last_step(self.step, self.warn):
            return None
        values = {"loss": float(loss), **dict(zip(LOSS_STATS, terms.tolist(), strict=True))}
        if isinstance(self.model.renderer, VolumeRenderer):
            values["sharpness"] = float(self.model.renderer.inv_s().detach())
        values["samples_per_ray"] = float(rays.t.shape[1])
        return values

    def _backward(self, progress: float) -> tuple[Tensor, Tensor, RaySamples, dict[str, Tensor]]:
        """Draw a batch and leave the gradient of its loss: the loss, its terms, and what was rendered where."""
        batch, schedule = self._batch(), self._schedule(progress)
        with torch.no_grad():
            rays = self._place(
                self.model,
                self.photos,
                self.cache,
                self.half_extent,
                batch.pixels,
                batch.jitter,
                batch.background_jitter,
            )
            color, weight = self.photos.colors(batch.pixels)
            first = batch.pixels[: self.batch_size.patches]
            patches = (
                self._patches(self.photos, first, batch.source_priority, schedule.patch_level, N_PATCH_SOURCES)
                if self.config.losses.patch > 0
                else None
            )
        inputs = (self.model, self.photos, rays, patches, batch, schedule, color, weight)
        loss, terms, out = self._loss(*inputs, *([] if self.cameras is None else [self.cameras]))
        loss.backward()
        return loss.detach(), terms, rays, out

    def _reduce_batch_size(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        smaller_size = halve_batch_size(self.batch_size)
        if smaller_size is None:
            raise OutOfMemory(
                f"Memory does not suffice for a step of {self.batch_size.rays} rays",
                hint="close other programs, make blocks smaller (partition.memory_gib), or use --device cpu",
            )
        self.warn(f"memory does not suffice for {self.batch_size.rays} rays a step: going on with {smaller_size.rays}")
        self.batch_size = smaller_size

    def _set_progress(self, progress: float) -> None:
        config = self.config
        encoding, final = config.encoding, config.rates.final
        if isinstance(encoding, HashEncodingConfig):
            first = min(encoding.start_levels, encoding.levels)
            active = first + (encoding.levels - first) * min(1.0, progress / encoding.coarse_to_fine)
            self.model.surface.encoding.set_progress(active)
        rate = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
        rate *= min(1.0, (self.step + 1) / 50)
        for group, base in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        if self.cameras is not None and progress < REFINEMENT_START_SHARE:
            self.optimizer.param_groups[-1]["lr"] = 0.0

    def _schedule(self, progress: float) -> LossSchedule:
        config = self.config
        losses = config.losses
        term = {
            "colour": losses.colour,
            "colour_squared": losses.colour_squared,
            "eikonal": losses.eikonal,
            "points": losses.points,
            "free": losses.free,
            "patch": losses.patch if progress >= losses.patch_after else 0.0,
            "opacity": losses.opacity,
            "curvature": losses.curvature * min(1.0, progress / CURVATURE_WARM_UP_SHARE),
            "occupancy": losses.occupancy,
            "sky": losses.sky,
            "kind": losses.kind,
            "layout": losses.layout,
            "normals": losses.normals,
        }
        level = 1 if progress < 0.25 else 0
        return LossSchedule(
            torch.tensor(min(1.0, progress / self._anneal), device=self.device),
            torch.tensor(level, device=self.device),
            torch.tensor([term[name] for name in LOSS_TERMS], device=self.device),
        )

    def _batch(self) -> TrainBatch:
        config, generator, supervision, batch_size = self.config, self.generator, self.supervision, self.batch_size

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(self.device)

        n = batch_size.points
        point = (rand(n) * len(supervision.points)).long().clamp(max=len(supervision.points) - 1)
        ray_index = (rand(n) * len(supervision.ray_depth)).long().clamp(max=len(supervision.ray_depth) - 1)
        near, end, depth = (
            supervision.ray_near[ray_index],
            supervision.ray_far[ray_index],
            supervision.ray_depth[ray_index],
        )
        u = rand(n)
        back = torch.where(torch.arange(n, device=self.device) % 2 == 0, 10.0 ** (-3.0 * u), u)
        at = end - (end - near) * back
        free_points = supervision.ray_origin[ray_index] + supervision.ray_direction[ray_index] * at[:, None]
        interior_points, interior_weight = None, None
        if config.losses.occupancy > 0:  # as dense near the surface as the even rows of ``free``
            even = ray_index[::2]
            ray = (supervision.ray_origin[even], supervision.ray_direction[even], depth[::2])
            interior_points, interior_weight = interior_points_behind(*ray, u[::2], self.half_extent)
        pixels = self.photos.draw_pixels(batch_size.rays, generator)
        return TrainBatch(
            pixels=pixels,
            jitter=rand(batch_size.rays, self.model.sampler.n_jitter),
            background_jitter=rand(batch_size.rays, config.outside.samples),
            points=supervision.points[point],
            point_weight=supervision.weight[point],
            point_normal=supervision.normal[point],
            free_points=free_points,
            free_margin=(0.2 * (depth - at)).clamp(max=0.02),
            uniform=(rand(n, 3) * 2.0 - 1.0) * self.half_extent,
            source_priority=rand(batch_size.patches, self.photos.sources.shape[1]),
            interior_points=interior_points,
            interior_weight=interior_weight,
            sky=self.photos.labels_at(pixels, labels.SKY)[:, 0] if config.losses.sky > 0 else None,
            semantic=None if self.model.layout is None else self.photos.labels_at(pixels, *labels.SURFACE_LABELS),
        )

    # -- the cached volume -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, near_only: bool) -> None:
        """Evaluate the network on the cached volume: everywhere, or where the surface of a distance may be."""
        rows = None
        if near_only and self.config.surface.distance:
            rows = torch.nonzero(self.cache.values.view(-1).abs() < 3.0 * self.cache.spacing)[:, 0]
        self.cache.refresh(self.sdf, rows)

    @torch.no_grad()
    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The SDF at any number of points, a fixed number at a time."""
        size = SDF_CHUNK_POINTS_CUDA if self.device.startswith("cuda") else SDF_CHUNK_POINTS_CPU
        return map_chunks(functools.partial(self._sdf, self.model.surface), points, size)

    # -- measuring ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def held_out_psnr(self, limit: int = 4096) -> float | None:
        """PSNR in dB over held-out pixels (never a target of the colour loss), or None where there is none to learn."""
        pixels = self.photos.held_out
        if len(pixels) == 0 or not self.config.losses.has_color_loss:
            return None
        pixels = pixels[:: -(-len(pixels) // limit)]  # of all photos, which they are ordered by
        error, count = 0.0, 0.0
        for part in pixels.split(self.batch_size.rays):
            rendered = self.render(part)["color"].clamp(0.0, 1.0)
            truth, weight = self.photos.colors(part)
            error += float((((rendered - truth) ** 2).mean(dim=1) * weight).sum())
            count += float(weight.sum())
        return -10.0 * math.log10(max(error / max(count, 1.0), 1e-10))

    @torch.no_grad()
    def sfm_error(self) -> float | None:
        """Median |sdf| at the block's SfM points, or at evenly chosen ones where they are many; None without any.

        In the block's unit. Training sees these points too: it tells how well they are met, not how true the surface.
        """
        points = self.supervision.points[self.supervision.sfm > 0]
        points = points[:: -(-len(points) // SDF_CHUNK_POINTS_CPU) or 1]
        return float(self.sdf(points).abs().median()) if len(points) else None

    @torch.no_grad()
    def render(self, pixels: Tensor) -> dict[str, Tensor]:
        """What ``BlockModel.render`` gives for pixels [n, 3] (photo, x, y), eagerly; and ``hits``."""
        n, config = len(pixels), self.config
        jitter = torch.full((n, self.model.sampler.n_jitter), 0.5, device=self.device)
        background_jitter = torch.full((n, config.outside.samples), 0.5, device=self.device)
        rays = sample_rays(self.model, self.photos, self.cache, self.half_extent, pixels, jitter, background_jitter)
        none = torch.zeros(0, 3, device=self.device)
        one = torch.ones((), device=self.device)
        out = self.model.render(
            rays.origins, rays.directions, pixels[:, 0], rays.t, rays.deltas, rays.hits, rays.background_t, one, none
        )
        return {**out, "hits": rays.hits}

    # -- stopping and going on ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that makes the same curve go on: weights, optimiser, cached volume, random state, step."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.cameras is not None:
            out["cameras"] = self.cameras.correction
        out["cache"] = self.cache.values
        out["random"] = self.generator.get_state()
        out["step"] = torch.tensor(self.step)
        out["size"] = torch.tensor(self.batch_size)
        out["ahead"] = torch.tensor(self.skipped_share, dtype=torch.float64)
        out["spent_s"] = torch.tensor(self.spent_s, dtype=torch.float64)
        for index, entry in self.optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                out[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state``; QuoinError, and nothing taken over, where it belongs to another method or size."""
        expected = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("optimiser.")}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):  # those that never had a gradient have no entry either
            entry = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
            named = {f"optimiser.{number}.{name}": tensor for name, tensor in entry.items()}
            expected |= named if named.keys() & state.keys() else {}
        reason = checkpoint.find_mismatch(state, expected)
        if reason is not None:
            raise QuoinError(
                f"The checkpoint does not fit this configuration: {reason}", hint="redo the stage with --force train"
            )
        self.model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        if self.cameras is not None:
            self.cameras.correction.data.copy_(state["cameras"])
            self.cameras.write_to(self.photos)
        self.cache.values.copy_(state["cache"])
        self.generator.set_state(state["random"])
        self.step, self.spent_s, self.skipped_share = int(state["step"]), float(state["spent_s"]), float(state["ahead"])
        self.batch_size = BatchSize(*state["size"].tolist())
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".")
                entries.setdefault(int(index), {})[name] = value
        packed = self.optimizer.state_dict()
        packed["state"] = entries
        self.optimizer.load_state_dict(packed)


def evaluate_sdf(surface: SurfaceField, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """``surface.sdf(points)``, as a function that compiles once for all blocks."""
    return surface.sdf(points)
