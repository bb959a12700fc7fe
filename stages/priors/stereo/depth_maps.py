"""Stereo of all photos, from coarse to fine: each searches its planes, then keeps those that its neighbours confirm."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
import torch

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import project
from quoin.pipeline.geometry.covisibility import points_of, seen_matrix, source_photos
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.sensor_depth import SensorDepth, read_sensor_depth, with_sensor
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stereo.consistency import agreement, support
from quoin.stages.priors.stereo.hypotheses import Planes, contrast, finer
from quoin.stages.priors.stereo.patchmatch import REACHES, Search
from quoin.stages.priors.stereo.reprojection import carried
from quoin.stages.priors.stereo.sensor_planes import sensor_planes
from quoin.stages.priors.stereo.speckles import speckles
from quoin.stages.priors.stereo.views import View, level_within

COARSEST_EDGE_PX = 128
NEIGHBOURS = 10  # photos whose planes are compared with a photo's own, or as many as it is searched in
MIN_CONTRAST = 0.004  # standard deviation of gray about a pixel, of 1: flatter is sky, or the sky beside a chimney
RANGE_MARGIN = 1.3  # the sweep goes this factor beyond the nearest and farthest SfM point a photo knows of


class Pass(NamedTuple):
    """One visit of all photos: how many levels above the finest, and rounds of trying."""

    coarser: int
    rounds: int
    shake: float  # pixels in the sources by which depths are changed at random, in the first round


PASSES = (Pass(3, 6, 2.0), Pass(2, 3, 1.0), Pass(1, 2, 1.0), Pass(0, 1, 0.5))


class Step(NamedTuple):
    """What all photos do, in any order, before any does the next step."""

    kind: Literal["search", "believe"]
    number: int  # of the pass

    @property
    def name(self) -> str:
        return f"search {self.number + 1}" if self.kind == "search" else "agreement"


STEPS = [step for number in range(len(PASSES)) for step in (Step("search", number), Step("believe", number))]


class Photos:
    """The posed photos as stereo views, a few in memory at a time; their planes go through the store.

    ``todo``: those that have a depth map in the end.
    """

    def __init__(self, run: Run, config: PriorsConfig, device: str) -> None:
        self.run, self.config, self.device = run, config, device
        held_out = read_held_out(run)
        self.posed = posed = with_sensor(run, posed_images.read_posed(run), held_out)
        self.seen = seen_matrix(len(posed), len(posed.points_world), posed.track_photo, posed.track_point)
        used = np.setdiff1d(np.arange(len(posed)), held_out)
        cameras = posed.cam_from_world[used], posed.intrinsics[used], posed.sizes[used]
        chosen = source_photos(*cameras, self.seen[used], posed.points_world, max(NEIGHBOURS, config.sources))
        self.neighbours: list[list[int]] = [[] for _ in range(len(posed))]
        for index, row in zip(used, chosen, strict=True):
            self.neighbours[index] = used[row[row >= 0]].tolist()
        self.sensor = {i for i in used.tolist() if read_sensor_depth(run, i) is not None}
        edge_px = config.stereo_edge_px or COARSEST_EDGE_PX
        self.finest = [level_within(size, edge_px) for size in posed.sizes]
        self.coarsest = [level_within(size, min(COARSEST_EDGE_PX, edge_px)) for size in posed.sizes]
        self.range = [self._inverse_range(i) for i in range(len(posed))]
        self.todo = [
            i for i in range(len(posed)) if i in self.sensor or (config.stereo_edge_px and self._can_search(i))
        ]
        self.gray = functools.lru_cache(maxsize=64)(self._gray)
        self.up = torch.tensor([0.0, 0.0, 1.0], device=device)

    def visit(self, step: Step, indices: list[int], report: Reporter, share: str = "") -> None:
        """Do a step for some photos, whose neighbours have done the step before; ``share`` tells which in progress."""
        if step.number < len(PASSES) - 1 and self.sensor.issuperset(self.todo):
            return  # nothing is searched: one look at what agrees
        work = self.search if step.kind == "search" else self.believe
        with torch.no_grad(), report.task(f"priors/{step.name}{share}", len(indices), "photos") as advance:
            for done, index in enumerate(indices):
                work(index, step.number)
                advance(done + 1)

    def view(self, index: int, level: int) -> View:
        k = torch.tensor(self.posed.intrinsics[index] / 2**level, dtype=torch.float32, device=self.device)
        pose = torch.tensor(self.posed.cam_from_world[index], dtype=torch.float32, device=self.device)
        return View(self.gray(index, level), k, pose)

    def _can_search(self, index: int) -> bool:
        return len(self.neighbours[index]) >= 2 and self.range[index] is not None

    def search(self, index: int, number: int) -> None:
        """Improve a photo's planes, at the level pass ``number`` works at; those of a sensor are taken as they are."""
        if priors.plane_passes(self.run, index, "planes") > number:
            return
        if index in self.sensor:
            found = self._measured(index)
            planes = sensor_planes(torch.from_numpy(found.depth))
            stacked = torch.stack([*planes, torch.zeros_like(planes.w)]).numpy()
            priors.write_planes(self.run, index, "planes", stacked, found.level, passes=len(PASSES))
            return
        step, before = PASSES[number], self._planes(index)
        if before is None and number:  # who wrote them was killed: once more from the beginning
            for earlier in range(number):
                self.search(index, earlier)
            before = self._planes(index)
        level = min(self.finest[index] + step.coarser, self.coarsest[index])
        chosen = self.neighbours[index][: self.config.sources]
        sources = [self.view(s, min(self.finest[s] + step.coarser, self.coarsest[s])) for s in chosen]
        inverse_range = self.range[index]
        assert inverse_range is not None  # photos without a range are not in todo
        generator = torch.Generator().manual_seed(self.run.seed * 1_000_003 + index)
        search = Search(self.view(index, level), sources, self.config.sources, inverse_range, generator)
        if before is None:
            search.sweep(self.up)
        else:
            planes, _, at = before
            for _ in range(at - level):
                planes = finer(planes, search.view.gray.shape)
            search.start(planes)
            search.attempt(carried(search.view, [self._believed(s) for s in self.neighbours[index] if s in self.todo]))
        for turn in range(step.rounds):
            search.spread(REACHES[turn % len(REACHES)])
            search.flatten()
            search.shake(step.shake * 0.5**turn)
        stacked = torch.stack([*search.planes, search.cost]).cpu().numpy()
        priors.write_planes(self.run, index, "planes", stacked, level, passes=number + 1)

    def believe(self, index: int, number: int) -> None:
        """Keep the planes that neighbours confirm, theirs or those around them, and by how many."""
        if priors.plane_passes(self.run, index, "believed") > number:
            return
        planes, cost, level = self._required(index)
        known = [s for s in self.neighbours[index] if s in self.todo]
        theirs = [self._required(s) for s in known]
        views = [self.view(s, at) for s, (_, _, at) in zip(known, theirs, strict=True)]
        count, mean, through = agreement(self.view(index, level), planes, views, [p for p, _, _ in theirs])
        step = 2**level
        mask = posed_images.read_mask(self.run, index)[::step, ::step][: cost.shape[0], : cost.shape[1]]
        shown = priors.read_labels_at(self.run, index, level, mask.shape)
        if index in self.sensor:  # measured, not matched: enough that no more photos see through it than agree
            good = (planes.w > 0) & (through <= count)
            mask = np.where(shown == labels.PASSING, 0, mask)
        else:
            good = (support(planes, count, through) > self.config.min_support) & (cost < self.config.max_cost)
            good &= contrast(self.gray(index, level)) > MIN_CONTRAST
            mask = np.where(np.isin(shown, labels.EMPTY), 0, mask)
        good &= torch.from_numpy(mask > 127).to(self.device)
        believed = torch.stack([torch.where(good, 1.0 / mean.clamp(min=1e-9), 0.0), planes.a, planes.b, count])
        priors.write_planes(self.run, index, "believed", believed.cpu().numpy(), level, passes=number + 1)

    def _measured(self, index: int) -> SensorDepth:
        found = read_sensor_depth(self.run, index)
        assert found is not None  # it is in self.sensor
        return found

    def _planes(self, index: int) -> tuple[Planes, torch.Tensor, int] | None:
        """The planes a photo has so far, their cost, and their level."""
        found = priors.read_planes(self.run, index, "planes")
        if found is None:
            return None
        w, a, b, cost = torch.from_numpy(found[0]).to(self.device).unbind()
        return Planes(w, a, b), cost, found[1]

    def _required(self, index: int) -> tuple[Planes, torch.Tensor, int]:
        found = self._planes(index)
        assert found is not None  # written in the pass before
        return found

    def _believed(self, index: int) -> tuple[View, Planes]:
        """The planes a photo believed at the end of the pass before, w = 0 elsewhere."""
        found = priors.read_planes(self.run, index, "believed")
        assert found is not None  # believe follows search
        return self.view(index, found[1]), Planes(*torch.from_numpy(found[0][:3]).to(self.device))

    def finish(self, index: int) -> tuple[float, float]:
        """Leave the believed depths; the share of pixels that is believed, and by how many others in the median."""
        found = priors.read_planes(self.run, index, "believed")
        assert found is not None
        w, count = found[0][0], found[0][3]
        depth = np.where(w > 0, 1.0 / np.maximum(w, 1e-9), 0.0)
        depth[speckles(depth)] = 0.0
        sigma = self._measured(index).sigma_per_unit if index in self.sensor else None
        priors.write_depth(self.run, index, depth, found[1], sigma_per_unit=sigma)
        good = depth > 0
        return float(good.mean()), float(np.median(count[good])) if good.any() else 0.0

    def _gray(self, index: int, level: int) -> torch.Tensor:
        weights = np.array([0.299, 0.587, 0.114], np.float32) / 255.0
        return torch.from_numpy(posed_images.read_photo(self.run, index, level).astype(np.float32) @ weights).to(
            self.device
        )

    def _inverse_range(self, index: int) -> tuple[float, float] | None:
        """Inverse depths to sweep, from the points in the photo's frame that it or one of its neighbours sees."""
        posed, near = self.posed, self.neighbours[index]
        known = points_of(self.seen, [index, *near])
        xy, depth = project(posed.cam_from_world[index], posed.intrinsics[index], posed.points_world[known])
        inside = (depth > 0) & np.all((xy >= 0) & (xy < posed.sizes[index]), axis=1)
        if inside.sum() < 8:
            return None
        nearest, farthest = np.percentile(depth[inside], [0.5, 99.5])
        return 1.0 / (farthest * RANGE_MARGIN), RANGE_MARGIN / nearest
