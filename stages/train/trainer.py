"""The training loop of one block: draws batches, steps, keeps the cached volume fresh, measures, stops and goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.compiling import compiled, free_sizes
from pipeline.errors import QuoinError
from stages.train.config import HashEncoding, NeusRenderer, TrainConfig
from stages.train.field.surface import SurfaceField
from stages.train.model import BlockModel
from stages.train.occupancy import points_behind
from stages.train.patch import PATCH_RADIUS, place_patches
from stages.train.photos import GRAY_LEVELS, PhotoSet
from stages.train.renderer.volume import VolumeRenderer
from stages.train.sampler.sections import points_along
from stages.train.step import PATCH_SOURCES, STATS, TERMS, Batch, Schedule, loss_of, place_samples
from stages.train.volume import Volume

CURVATURE_WARM_UP = 0.01  # share of the steps (Neuralangelo: 5,000 of 500,000)
MAX_BAD_STEPS = 20  # steps in a row without a finite loss before giving up
CHUNK, CHUNK_CUDA = 1 << 13, 1 << 18  # points asked for their SDF at once: what fits in a core's cache, or fills a GPU


@dataclass(frozen=True)
class Evidence:
    """What SfM says about the block, in its local frame, as tensors on the device.

    ``points`` [P, 3] with ``weight`` [P]; ``sight_*`` [S]: lines of sight from camera centres to points: the part
    ``enter..end`` of each that lies inside the block, in distance from the camera, and the distance ``reach`` of the
    point.
    """

    points: Tensor
    weight: Tensor
    sight_origin: Tensor
    sight_direction: Tensor
    sight_enter: Tensor
    sight_end: Tensor
    sight_reach: Tensor

    def to(self, device: str) -> Evidence:
        return Evidence(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


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
    ) -> None:
        self.model, self.photos, self.cache = model.to(device), photos.to(device), cache.to(device)
        self.evidence, self.half, self.config, self.device = evidence.to(device), half.to(device), config, device
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self._bad = 0, 0
        self.spent_s, self.budget_s = 0.0, math.inf
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
        for volume in (self.cache, self.model.surface.base):
            if volume is not None:
                free_sizes(volume.values, 0, 1, 2)
        for name, buffer in self.photos.named_buffers():
            if name not in ("tiles", "tile_cdf", "held_out"):
                free_sizes(buffer, 0)
        free_sizes(self.model.appearance.table, 0)
        self._anneal = config.renderer.anneal if isinstance(config.renderer, NeusRenderer) else 1.0
        self._loss = compiled(loss_of, device)
        self._place = compiled(torch.no_grad()(place_samples), device)
        self._patches = compiled(torch.no_grad()(place_patches), device)
        self._sdf = compiled(torch.no_grad()(sdf_of), device)

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1, by steps or by time, whichever is nearer its end."""
        return min(1.0, max(self.step / self.config.steps, self.spent_s / self.budget_s))

    # -- one step ----------------------------------------------------------------------------------------------------

    def advance(self) -> dict[str, float] | None:
        """One optimiser step. Returns the loss terms every 10th step (reading them waits for the device), else None."""
        config, share = self.config, self.share
        if self.step % config.cache.refresh_every == 0 and self.step:
            self.refresh(near_only=True)
        self._set_progress(share)
        batch = self._batch()
        schedule = self._schedule(share)
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
            first = batch.pixels[: config.patches]
            patches = (
                self._patches(self.photos, first, batch.source_draw, schedule.patch_level, PATCH_SOURCES)
                if config.losses.patch > 0
                else None
            )
        loss, terms, out = self._loss(self.model, self.photos, rays, patches, batch, schedule, colour, weight)
        self.optimiser.zero_grad(set_to_none=True)
        if not self._finite(loss, terms):
            self.step += 1
            return None
        loss.backward()
        self.optimiser.step()
        points = points_along(rays.origins, rays.directions, rays.distance)
        with torch.no_grad():
            hit = rays.hits[:, None].expand_as(rays.distance).reshape(-1)
            self.cache.absorb(
                points.reshape(-1, 3)[hit],
                out["sdf"].detach().reshape(-1)[hit],
                out["gradient"].detach().reshape(-1, 3)[hit],
            )
        self.step += 1
        if self.step % 10:
            return None
        values = {"loss": float(loss.detach()), **dict(zip(STATS, terms.tolist(), strict=True))}
        if isinstance(self.model.renderer, VolumeRenderer):
            values["sharpness"] = float(self.model.renderer.sharpness().detach())
        return values

    def _finite(self, loss: Tensor, terms: Tensor) -> bool:
        if bool(torch.isfinite(loss)):
            self._bad = 0
            return True
        self._bad += 1
        if self._bad >= MAX_BAD_STEPS:
            wrong = [name for name, value in zip(STATS, terms.tolist(), strict=True) if not math.isfinite(value)]
            raise QuoinError(
                f"Training diverged at step {self.step}: {', '.join(wrong) or 'the loss'} is not a finite number",
                do="lower train.rates.grid, then quoin resume (the last checkpoint is intact)",
            )
        return False

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

    def _schedule(self, share: float) -> Schedule:
        config = self.config
        losses = config.losses
        late = 1.0 if share < 0.5 else losses.late
        term = {
            "colour": losses.colour,
            "eikonal": losses.eikonal,
            "points": losses.points * late,
            "free": losses.free * late,
            "patch": losses.patch if share >= losses.patch_after else 0.0,
            "opacity": losses.opacity,
            "curvature": losses.curvature * min(1.0, share / CURVATURE_WARM_UP),
            "occupancy": losses.occupancy,
        }
        level = 2 if share < 0.25 else 1 if share < 0.5 else 0
        return Schedule(
            torch.tensor(min(1.0, share / self._anneal), device=self.device),
            torch.tensor(min(level, GRAY_LEVELS - 1), device=self.device),
            torch.tensor([term[name] for name in TERMS], device=self.device),
        )

    def _batch(self) -> Batch:
        config, generator, known = self.config, self.generator, self.evidence

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(self.device)

        n = config.points
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
        return Batch(
            pixels=self.photos.draw(config.rays, generator),
            jitter=rand(config.rays, self.model.sampler.n_jitter),
            outside_jitter=rand(config.rays, config.outside.samples),
            points=known.points[point],
            point_weight=known.weight[point],
            free=free,
            free_margin=(0.2 * (reach - at)).clamp(max=0.02),
            uniform=(rand(n, 3) * 2.0 - 1.0) * self.half,
            source_draw=rand(config.patches, self.photos.sources.shape[1]),
            behind=behind,
            behind_weight=behind_weight,
        )

    # -- the cached volume -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, near_only: bool) -> None:
        """Evaluate the network on the cached volume: everywhere, or where the surface may be."""
        rows = None
        if near_only:
            rows = torch.nonzero(self.cache.values.view(-1).abs() < 3.0 * self.cache.spacing)[:, 0]
        self.cache.refresh(self.sdf, rows)

    @torch.no_grad()
    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """The SDF at any number of points, a fixed number at a time."""
        size = CHUNK_CUDA if self.device.startswith("cuda") else CHUNK
        parts = torch.nn.functional.pad(points, (0, 0, 0, -len(points) % size)).split(size)
        values = [self._sdf(self.model.surface, part) for part in parts]
        return torch.cat(values)[: len(points)] if values else points[:, 0]

    # -- measuring ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def held_out_psnr(self, limit: int = 4096) -> float | None:
        """PSNR in dB over held-out pixels (never a target of the colour loss), or None where there is none to learn."""
        pixels = self.photos.held_out
        if len(pixels) == 0 or self.config.losses.colour == 0:
            return None
        step = max(1, len(pixels) // limit)
        pixels = pixels[::step][:limit]
        error, count = 0.0, 0.0
        for part in pixels.split(self.config.rays):
            rendered = self.render(part)["colour"].clamp(0.0, 1.0)
            truth, weight = self.photos.colours(part)
            error += float((((rendered - truth) ** 2).mean(dim=1) * weight).sum())
            count += float(weight.sum())
        return -10.0 * math.log10(max(error / max(count, 1.0), 1e-10))

    @torch.no_grad()
    def render(self, pixels: Tensor) -> dict[str, Tensor]:
        """Colour, opacity and depth of pixels [n, 3] (photo, x, y), eagerly."""
        n, config = len(pixels), self.config
        jitter = torch.full((n, self.model.sampler.n_jitter), 0.5, device=self.device)
        outside = torch.full((n, config.outside.samples), 0.5, device=self.device)
        rays = place_samples(self.model, self.photos, self.cache, self.half, pixels, jitter, outside)
        none = torch.zeros(0, 3, device=self.device)
        one = torch.ones((), device=self.device)
        return self.model.render(
            rays.origins, rays.directions, pixels[:, 0], rays.distance, rays.length, rays.hits, rays.outside, one, none
        )

    # -- stopping and going on ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that makes the same curve go on: weights, optimiser, cached volume, random state, step."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        out["cache"] = self.cache.values
        out["random"] = self.generator.get_state()
        out["step"] = torch.tensor(self.step)
        out["spent_s"] = torch.tensor(self.spent_s, dtype=torch.float64)
        for index, entry in self.optimiser.state_dict()["state"].items():
            for name, value in entry.items():
                out[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state``; QuoinError where it belongs to another method or size."""
        try:
            self.model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
            self.cache.values.copy_(state["cache"])
        except (RuntimeError, KeyError) as error:
            raise QuoinError(
                f"The checkpoint does not fit this configuration: {str(error).splitlines()[0]}",
                do="redo the stage with --force train",
            ) from None
        self.generator.set_state(state["random"])
        self.step, self.spent_s = int(state["step"]), float(state["spent_s"])
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


def trained_pixels(config: TrainConfig) -> int:
    """Pixels of other photos a step looks at through its patches (for the plan)."""
    return config.patches * (2 * PATCH_RADIUS + 1) ** 2


Progress = Callable[[float], None]


def lines_of_sight(
    centres: np.ndarray, points: np.ndarray, photo: np.ndarray, point: np.ndarray, half: np.ndarray
) -> dict[str, np.ndarray]:
    """The parts of camera-to-point segments that lie inside the box [-half, half], as the fields of Evidence."""
    origin, target = centres[photo], points[point]
    reach = np.linalg.norm(target - origin, axis=1)
    direction = (target - origin) / np.maximum(reach, 1e-9)[:, None]
    safe = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    a, b = (-half - origin) / safe, (half - origin) / safe
    enter = np.maximum(np.minimum(a, b).max(axis=1), 0.0)
    end = np.minimum(np.maximum(a, b).min(axis=1), reach)
    keep = end > enter + 1e-4
    return {
        "sight_origin": origin[keep],
        "sight_direction": direction[keep],
        "sight_enter": enter[keep],
        "sight_end": end[keep],
        "sight_reach": reach[keep],
    }
