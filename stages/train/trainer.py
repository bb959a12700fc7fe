"""The training loop of one block: draws batches, steps, keeps the cached volume fresh, measures, stops and goes on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.batching import by_chunks
from quoin.fields.compile import compiled, free_sizes
from quoin.fields.field.sdf import SurfaceField
from quoin.fields.grids.dense_sdf import Volume
from quoin.fields.model import BlockModel
from quoin.fields.renderer.volume import VolumeRenderer
from quoin.fields.sampler.sections import points_along
from quoin.pipeline.core.errors import OutOfMemory, QuoinError
from quoin.pipeline.imaging import labels
from quoin.stages.train import checkpoint
from quoin.stages.train.batch_size import StepSize, halved, out_of_memory
from quoin.stages.train.camera_refinement import AFTER, Cameras
from quoin.stages.train.config import HashEncoding, NeusRenderer, TrainConfig
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.data.sfm_supervision import Evidence
from quoin.stages.train.finite_check import Health
from quoin.stages.train.occupancy import points_behind
from quoin.stages.train.photoconsistency import place_patches
from quoin.stages.train.step import PATCH_SOURCES, STATS, TERMS, Batch, Rays, Schedule, loss_of, place_samples

CURVATURE_WARM_UP = 0.01  # share of the steps (Neuralangelo: 5,000 of 500,000)
READ_EVERY = 10  # steps between two readings of numbers, for which the device must be waited
CHUNK, CHUNK_CUDA = 1 << 13, 1 << 18  # points asked for their SDF at once: what fits in a core's cache, or fills a GPU


class Trainer:
    """Trains a BlockModel on a PhotoSet. ``state`` / ``restore`` carry everything that makes the same curve go on."""

    def __init__(
        self,
        model: BlockModel,
        photos: PhotoSet,
        evidence: Evidence,
        cache: Volume,
        half: Float[Tensor, "3"],
        config: TrainConfig,
        device: str,
        seed: int,
        cameras: Cameras | None = None,
    ) -> None:
        self.cameras = None if cameras is None else cameras.to(device)
        self.model, self.photos, self.cache = model.to(device), photos.to(device), cache.to(device)
        self.evidence, self.half, self.config, self.device = evidence.to(device), half.to(device), config, device
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.ahead = 0, 0.0
        self.spent_s, self.budget_s = 0.0, math.inf
        self.size = StepSize(config.rays, config.points, min(config.patches, config.rays))
        self.warn: Callable[[str], None] = lambda message: None
        rates = config.rates
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            grid, surface = name.endswith("encoding.table"), name.startswith("surface.network")
            rate = rates.grid if grid else rates.surface if surface else rates.colour
            groups.setdefault(rate, []).append(parameter)
        self._rates = list(groups)
        self.optimiser = torch.optim.Adam(
            [{"params": group, "lr": rate} for rate, group in groups.items()], betas=(0.9, 0.99), eps=1e-15, fused=True
        )
        small = [p for name, p in model.named_parameters() if not name.endswith("encoding.table")]
        if self.cameras is not None:
            self.optimiser.add_param_group({"params": [self.cameras.correction], "lr": config.rates.cameras})
            self._rates.append(config.rates.cameras)
            small.append(self.cameras.correction)
            self.cameras.lay_into(self.photos)
            self.cameras.free_sizes()
        self.health = Health(small, device)
        free_sizes(self.cache.values, 0, 1, 2)
        if self.model.surface.base is not None:
            self.model.surface.base.free_sizes()
        for name, buffer in self.photos.named_buffers():
            if name not in ("tiles", "tile_cdf", "held_out"):
                free_sizes(buffer, 0)
        free_sizes(self.model.appearance.table, 0)
        free_sizes(self.model.appearance.known, 0)
        self._anneal = config.renderer.anneal if isinstance(config.renderer, NeusRenderer) else 1.0
        self._loss = compiled(loss_of, device)
        self._place = compiled(torch.no_grad()(place_samples), device)
        self._patches = compiled(torch.no_grad()(place_patches), device)
        self._sdf = compiled(torch.no_grad()(sdf_of), device)

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1, by steps or by time, whichever is nearer its end."""
        return min(1.0, max(self.step / self.config.steps, self.spent_s / self.budget_s) + self.ahead)

    def seconds_left(self, per_step: float) -> float:
        """Until the steps or the budget end, whichever is first, at so many seconds a step."""
        whole = 1.0 - self.ahead
        left = min((whole * self.config.steps - self.step) * per_step, whole * self.budget_s - self.spent_s)
        return max(0.0, left)

    def hurry_to(self, share: float) -> None:
        """Leave out the part of the training before ``share``."""
        self.ahead += max(0.0, share - self.share)

    # -- one step ----------------------------------------------------------------------------------------------------

    def advance(self) -> dict[str, float] | None:
        """One optimiser step. Returns the loss terms every 10th step (reading them waits for the device), else None.

        A step whose loss or gradient is not finite changes nothing. One that memory does not suffice for is taken again
        with half of everything.
        """
        share = self.share
        if self.step % self.config.cache.refresh_every == 0 and self.step:
            self.refresh(near_only=True)
        self._set_progress(share)
        self.optimiser.zero_grad(set_to_none=True)
        taken = None
        try:
            taken = self._backward(share)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if taken is None:  # out of the except clause, which would keep what the step had made
            self._take_less()
            return None
        loss, terms, rays, out = taken
        self.health.judge(loss, terms, self.optimiser)
        self.optimiser.step()
        if self.cameras is not None:
            self.cameras.lay_into(self.photos)
        points = points_along(rays.origins, rays.directions, rays.distance)
        self.cache.absorb(
            points.reshape(-1, 3),
            out["sdf"].detach().reshape(-1),
            out["gradient"].detach().reshape(-1, 3),
            rays.hits[:, None].expand_as(rays.distance).reshape(-1),
        )
        self.step += 1
        if self.step % READ_EVERY or not self.health.is_well(self.step, self.warn):
            return None
        values = {"loss": float(loss), **dict(zip(STATS, terms.tolist(), strict=True))}
        if isinstance(self.model.renderer, VolumeRenderer):
            values["sharpness"] = float(self.model.renderer.sharpness().detach())
        values["samples_per_ray"] = float(rays.distance.shape[1])
        return values

    def _backward(self, share: float) -> tuple[Tensor, Tensor, Rays, dict[str, Tensor]]:
        """Draw a batch and leave the gradient of its loss: the loss, its terms, and what was rendered where."""
        batch, schedule = self._batch(), self._schedule(share)
        with torch.no_grad():
            rays = self._place(
                self.model,
                self.photos,
                self.cache,
                self.half,
                batch.pixels,
                batch.jitter,
                batch.outside_jitter,
            )
            colour, weight = self.photos.colours(batch.pixels)
            first = batch.pixels[: self.size.patches]
            patches = (
                self._patches(self.photos, first, batch.source_draw, schedule.patch_level, PATCH_SOURCES)
                if self.config.losses.patch > 0
                else None
            )
        inputs = (self.model, self.photos, rays, patches, batch, schedule, colour, weight)
        loss, terms, out = self._loss(*inputs, *([] if self.cameras is None else [self.cameras]))
        loss.backward()
        return loss.detach(), terms, rays, out

    def _take_less(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        less = halved(self.size)
        if less is None:
            raise OutOfMemory(
                f"Memory does not suffice for a step of {self.size.rays} rays",
                do="close other programs, make blocks smaller (partition.memory_gib), or use --device cpu",
            )
        self.warn(f"memory does not suffice for {self.size.rays} rays a step: going on with {less.rays}")
        self.size = less

    def _set_progress(self, share: float) -> None:
        config = self.config
        want, final = config.encoding, config.rates.final
        if isinstance(want, HashEncoding):
            first = min(want.start_levels, want.levels)
            active = first + (want.levels - first) * min(1.0, share / want.coarse_to_fine)
            self.model.surface.encoding.set_progress(active)
        rate = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))
        rate *= min(1.0, (self.step + 1) / 50)
        for group, base in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        if self.cameras is not None and share < AFTER:
            self.optimiser.param_groups[-1]["lr"] = 0.0

    def _schedule(self, share: float) -> Schedule:
        config = self.config
        losses = config.losses
        term = {
            "colour": losses.colour,
            "colour_squared": losses.colour_squared,
            "eikonal": losses.eikonal,
            "points": losses.points,
            "free": losses.free,
            "patch": losses.patch if share >= losses.patch_after else 0.0,
            "opacity": losses.opacity,
            "curvature": losses.curvature * min(1.0, share / CURVATURE_WARM_UP),
            "occupancy": losses.occupancy,
            "sky": losses.sky,
            "kind": losses.kind,
            "layout": losses.layout,
            "normals": losses.normals,
        }
        level = 1 if share < 0.25 else 0
        return Schedule(
            torch.tensor(min(1.0, share / self._anneal), device=self.device),
            torch.tensor(level, device=self.device),
            torch.tensor([term[name] for name in TERMS], device=self.device),
        )

    def _batch(self) -> Batch:
        config, generator, known, size = self.config, self.generator, self.evidence, self.size

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(self.device)

        n = size.points
        point = (rand(n) * len(known.points)).long().clamp(max=len(known.points) - 1)
        sight = (rand(n) * len(known.sight_reach)).long().clamp(max=len(known.sight_reach) - 1)
        enter, end, reach = known.sight_enter[sight], known.sight_end[sight], known.sight_reach[sight]
        u = rand(n)
        back = torch.where(torch.arange(n, device=self.device) % 2 == 0, 10.0 ** (-3.0 * u), u)
        at = end - (end - enter) * back
        free = known.sight_origin[sight] + known.sight_direction[sight] * at[:, None]
        behind, behind_weight = None, None
        if config.losses.occupancy > 0:  # as dense near the surface as the even rows of ``free``
            even = sight[::2]
            ray = (known.sight_origin[even], known.sight_direction[even], reach[::2])
            behind, behind_weight = points_behind(*ray, u[::2], self.half)
        pixels = self.photos.draw(size.rays, generator)
        return Batch(
            pixels=pixels,
            jitter=rand(size.rays, self.model.sampler.n_jitter),
            outside_jitter=rand(size.rays, config.outside.samples),
            points=known.points[point],
            point_weight=known.weight[point],
            point_normal=known.normal[point],
            free=free,
            free_margin=(0.2 * (reach - at)).clamp(max=0.02),
            uniform=(rand(n, 3) * 2.0 - 1.0) * self.half,
            source_draw=rand(size.patches, self.photos.sources.shape[1]),
            behind=behind,
            behind_weight=behind_weight,
            sky=self.photos.labels_at(pixels, labels.SKY)[:, 0] if config.losses.sky > 0 else None,
            kind=None if self.model.layout is None else self.photos.labels_at(pixels, *labels.KINDS),
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
        size = CHUNK_CUDA if self.device.startswith("cuda") else CHUNK
        return by_chunks(functools.partial(self._sdf, self.model.surface), points, size)

    # -- measuring ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def held_out_psnr(self, limit: int = 4096) -> float | None:
        """PSNR in dB over held-out pixels (never a target of the colour loss), or None where there is none to learn."""
        pixels = self.photos.held_out
        if len(pixels) == 0 or not self.config.losses.sees_colour:
            return None
        pixels = pixels[:: -(-len(pixels) // limit)]  # of all photos, which they are ordered by
        error, count = 0.0, 0.0
        for part in pixels.split(self.size.rays):
            rendered = self.render(part)["colour"].clamp(0.0, 1.0)
            truth, weight = self.photos.colours(part)
            error += float((((rendered - truth) ** 2).mean(dim=1) * weight).sum())
            count += float(weight.sum())
        return -10.0 * math.log10(max(error / max(count, 1.0), 1e-10))

    @torch.no_grad()
    def sfm_error(self) -> float | None:
        """Median |sdf| at the block's SfM points, or at evenly chosen ones where they are many; None without any.

        In the block's unit. Training sees these points too: it tells how well they are met, not how true the surface.
        """
        points = self.evidence.points[self.evidence.sfm > 0]
        points = points[:: -(-len(points) // CHUNK) or 1]
        return float(self.sdf(points).abs().median()) if len(points) else None

    @torch.no_grad()
    def render(self, pixels: Tensor) -> dict[str, Tensor]:
        """What ``BlockModel.render`` gives for pixels [n, 3] (photo, x, y), eagerly; and ``hits``."""
        n, config = len(pixels), self.config
        jitter = torch.full((n, self.model.sampler.n_jitter), 0.5, device=self.device)
        outside = torch.full((n, config.outside.samples), 0.5, device=self.device)
        rays = place_samples(self.model, self.photos, self.cache, self.half, pixels, jitter, outside)
        none = torch.zeros(0, 3, device=self.device)
        one = torch.ones((), device=self.device)
        out = self.model.render(
            rays.origins, rays.directions, pixels[:, 0], rays.distance, rays.length, rays.hits, rays.outside, one, none
        )
        return {**out, "hits": rays.hits}

    # -- stopping and going on ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that makes the same curve go on: weights, optimiser, cached volume, random state, step."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.cameras is not None:
            out["cameras"] = self.cameras.correction
        out["cache"] = self.cache.values
        out["random"] = self.generator.get_state()
        out["step"] = torch.tensor(self.step)
        out["size"] = torch.tensor(self.size)
        out["ahead"] = torch.tensor(self.ahead, dtype=torch.float64)
        out["spent_s"] = torch.tensor(self.spent_s, dtype=torch.float64)
        for index, entry in self.optimiser.state_dict()["state"].items():
            for name, value in entry.items():
                out[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state``; QuoinError, and nothing taken over, where it belongs to another method or size."""
        mine = {name: tensor for name, tensor in self.state().items() if not name.startswith("optimiser.")}
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):  # those that never had a gradient have no entry either
            entry = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
            named = {f"optimiser.{number}.{name}": tensor for name, tensor in entry.items()}
            mine |= named if named.keys() & state.keys() else {}
        reason = checkpoint.misfit(state, mine)
        if reason is not None:
            raise QuoinError(
                f"The checkpoint does not fit this configuration: {reason}", do="redo the stage with --force train"
            )
        self.model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        if self.cameras is not None:
            self.cameras.correction.data.copy_(state["cameras"])
            self.cameras.lay_into(self.photos)
        self.cache.values.copy_(state["cache"])
        self.generator.set_state(state["random"])
        self.step, self.spent_s, self.ahead = int(state["step"]), float(state["spent_s"]), float(state["ahead"])
        self.size = StepSize(*state["size"].tolist())
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".")
                entries.setdefault(int(index), {})[name] = value
        packed = self.optimiser.state_dict()
        packed["state"] = entries
        self.optimiser.load_state_dict(packed)


def sdf_of(surface: SurfaceField, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """``surface.sdf(points)``, as a function that compiles once for all blocks."""
    return surface.sdf(points)
