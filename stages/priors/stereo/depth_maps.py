"""Drives stereo of all photos, coarse to fine: PatchMatch at each level, then the checks that neighbors confirm it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import is_in_image, project
from quoin.pipeline.geometry.covisibility import observation_matrix, observed_points, source_photos
from quoin.pipeline.imaging import labels
from quoin.pipeline.imaging.filters import rgb_to_gray
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.sensor_depth import SensorDepth, add_sensor_points, read_sensor_depth
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stereo.consistency import geometric_consistency, local_support, speckles
from quoin.stages.priors.stereo.hypotheses import (
    PlaneHypotheses,
    local_contrast,
    reproject_planes,
    sensor_planes,
    upsample_planes,
)
from quoin.stages.priors.stereo.patchmatch import PATCHMATCH_PARAMS, PatchMatch
from quoin.stages.priors.stereo.views import StereoView, level_for_edge_px


@dataclass(frozen=True)
class StereoParams:
    """Tuned numbers of stereo over all photos."""

    coarsest_edge_px: int = 128  # longest edge at the level where the search begins
    min_consistency_views: int = 10  # photos whose planes check a photo's own; at least as many as it is matched with
    min_local_contrast: float = 0.004  # gray in [0, 1]: flatter pixels are sky, or sky beside a chimney
    range_margin: float = 1.3  # factor by which the sweep goes beyond the depths of SfM points
    min_range_points: int = 8  # SfM points in view that give a photo a range of depths
    range_percentiles: tuple[float, float] = (0.5, 99.5)  # of the depths of SfM points, that bound the range


STEREO_PARAMS = StereoParams()


class PatchMatchPass(NamedTuple):
    """One pass over all photos: pyramid level above the finest, and rounds of PatchMatch."""

    levels_above_finest: int
    iterations: int
    perturbation_px: float  # random change of depths in the first round, in pixels of the sources


PATCHMATCH_PASSES = (
    PatchMatchPass(3, 6, 2.0),
    PatchMatchPass(2, 3, 1.0),
    PatchMatchPass(1, 2, 1.0),
    PatchMatchPass(0, 1, 0.5),
)


class StereoStep(NamedTuple):
    """A step that all photos finish, in any order, before the next begins."""

    kind: Literal["search", "believe"]
    pass_index: int

    @property
    def name(self) -> str:
        return f"search {self.pass_index + 1}" if self.kind == "search" else "agreement"


STEREO_STEPS = [
    step
    for pass_index in range(len(PATCHMATCH_PASSES))
    for step in (StereoStep("search", pass_index), StereoStep("believe", pass_index))
]


class StereoPhotos:
    """All posed photos as stereo views, a few in memory at a time; intermediate planes are kept in the store.

    ``depth_photos`` are the photos that get a depth map.
    """

    def __init__(self, run: Run, config: PriorsConfig, device: str) -> None:
        self.run, self.config, self.device = run, config, device
        held_out = read_held_out(run)
        self.posed = posed = add_sensor_points(run, posed_images.read_posed(run), held_out)
        self.visibility = observation_matrix(len(posed), len(posed.points_world), posed.track_photo, posed.track_point)
        used = np.setdiff1d(np.arange(len(posed)), held_out)
        cameras = posed.cam_from_world[used], posed.intrinsics[used], posed.sizes[used]
        chosen = source_photos(
            *cameras,
            self.visibility[used],
            posed.points_world,
            max(STEREO_PARAMS.min_consistency_views, config.sources),
        )
        self.neighbors: list[list[int]] = [[] for _ in range(len(posed))]
        for index, row in zip(used, chosen, strict=True):
            self.neighbors[index] = used[row[row >= 0]].tolist()
        self.sensor = {i for i in used.tolist() if read_sensor_depth(run, i) is not None}
        edge_px = config.stereo_edge_px or STEREO_PARAMS.coarsest_edge_px
        self.finest_level = [level_for_edge_px(size, edge_px) for size in posed.sizes]
        self.coarsest_level = [
            level_for_edge_px(size, min(STEREO_PARAMS.coarsest_edge_px, edge_px)) for size in posed.sizes
        ]
        self.inverse_depth_range = [self._inverse_depth_range(i) for i in range(len(posed))]
        self.depth_photos = [
            i for i in range(len(posed)) if i in self.sensor or (config.stereo_edge_px and self._can_search(i))
        ]
        self.gray = functools.lru_cache(maxsize=64)(self._read_gray)
        self.up = torch.tensor([0.0, 0.0, 1.0], device=device)

    def run_step(self, step: StereoStep, indices: list[int], report: Reporter, progress_suffix: str = "") -> None:
        """Run a step for some photos, whose neighbors have finished the step before.

        ``progress_suffix`` names the share of the photos in the progress display.
        """
        if step.pass_index < len(PATCHMATCH_PASSES) - 1 and self.sensor.issuperset(self.depth_photos):
            return  # sensors measured all depths: only the last consistency check is needed
        work = self.search if step.kind == "search" else self.filter_consistent
        with torch.no_grad(), report.task(f"priors/{step.name}{progress_suffix}", len(indices), "photos") as advance:
            for done, index in enumerate(indices):
                work(index, step.pass_index)
                advance(done + 1)

    def view(self, index: int, level: int) -> StereoView:
        k = torch.tensor(self.posed.intrinsics[index] / 2**level, dtype=torch.float32, device=self.device)
        pose = torch.tensor(self.posed.cam_from_world[index], dtype=torch.float32, device=self.device)
        return StereoView(self.gray(index, level), k, pose)

    def _can_search(self, index: int) -> bool:
        return len(self.neighbors[index]) >= 2 and self.inverse_depth_range[index] is not None

    def search(self, index: int, pass_index: int) -> None:
        """Refine a photo's planes at the level of pass ``pass_index``; planes of a sensor are stored unchanged."""
        if priors.count_hypothesis_passes(self.run, index, "planes") > pass_index:
            return
        if index in self.sensor:
            stored = self._sensor_depth(index)
            planes = sensor_planes(torch.from_numpy(stored.depth))
            stacked = torch.stack([*planes, torch.zeros_like(planes.w)]).numpy()
            priors.write_hypotheses(self.run, index, "planes", stacked, stored.level, n_passes=len(PATCHMATCH_PASSES))
            return
        step, previous = PATCHMATCH_PASSES[pass_index], self._read_hypotheses(index)
        if previous is None and pass_index:  # an earlier process was killed before writing them: start again
            for earlier in range(pass_index):
                self.search(index, earlier)
            previous = self._read_hypotheses(index)
        level = min(self.finest_level[index] + step.levels_above_finest, self.coarsest_level[index])
        chosen = self.neighbors[index][: self.config.sources]
        sources = [
            self.view(s, min(self.finest_level[s] + step.levels_above_finest, self.coarsest_level[s])) for s in chosen
        ]
        inverse_depth_range = self.inverse_depth_range[index]
        assert inverse_depth_range is not None  # photos without a range are not in depth_photos
        generator = torch.Generator().manual_seed(self.run.seed * 1_000_003 + index)
        search = PatchMatch(self.view(index, level), sources, self.config.sources, inverse_depth_range, generator)
        if previous is None:
            search.plane_sweep(self.up)
        else:
            planes, _, at = previous
            for _ in range(at - level):
                planes = upsample_planes(planes, search.view.gray.shape)
            search.start(planes)
            search.try_hypothesis(
                reproject_planes(
                    search.view, [self._consistent_planes(s) for s in self.neighbors[index] if s in self.depth_photos]
                )
            )
        reaches = PATCHMATCH_PARAMS.propagation_reaches_px
        for iteration in range(step.iterations):
            search.propagate(reaches[iteration % len(reaches)])
            search.refine_slant()
            search.perturb(step.perturbation_px * 0.5**iteration)
        stacked = torch.stack([*search.planes, search.cost]).cpu().numpy()
        priors.write_hypotheses(self.run, index, "planes", stacked, level, n_passes=pass_index + 1)

    def filter_consistent(self, index: int, pass_index: int) -> None:
        """Keep the planes that neighboring photos confirm, there or around, and how many confirm them."""
        if priors.count_hypothesis_passes(self.run, index, "consistent") > pass_index:
            return
        planes, cost, level = self._require_planes(index)
        sources = [s for s in self.neighbors[index] if s in self.depth_photos]
        source_planes = [self._require_planes(s) for s in sources]
        views = [self.view(s, at) for s, (_, _, at) in zip(sources, source_planes, strict=True)]
        count, mean, violations = geometric_consistency(
            self.view(index, level), planes, views, [p for p, _, _ in source_planes]
        )
        step = 2**level
        mask = posed_images.read_mask(self.run, index)[::step, ::step][: cost.shape[0], : cost.shape[1]]
        pixel_labels = priors.read_labels_at_level(self.run, index, level, mask.shape)
        if index in self.sensor:  # measured: kept unless more photos see through the plane than agree
            good = (planes.w > 0) & (violations <= count)
            mask = np.where(pixel_labels == labels.TRANSIENT, 0, mask)
        else:
            good = (local_support(planes, count, violations) > self.config.min_support) & (cost < self.config.max_cost)
            good &= local_contrast(self.gray(index, level)) > STEREO_PARAMS.min_local_contrast
            mask = np.where(np.isin(pixel_labels, labels.NON_SURFACE_LABELS), 0, mask)
        good &= torch.from_numpy(mask > 127).to(self.device)
        consistent = torch.stack([torch.where(good, 1.0 / mean.clamp(min=1e-9), 0.0), planes.a, planes.b, count])
        priors.write_hypotheses(self.run, index, "consistent", consistent.cpu().numpy(), level, n_passes=pass_index + 1)

    def _sensor_depth(self, index: int) -> SensorDepth:
        stored = read_sensor_depth(self.run, index)
        assert stored is not None  # it is in self.sensor
        return stored

    def _read_hypotheses(self, index: int) -> tuple[PlaneHypotheses, torch.Tensor, int] | None:
        """A photo's planes so far, their matching cost, and their pyramid level; None before the first pass."""
        stored = priors.read_hypotheses(self.run, index, "planes")
        if stored is None:
            return None
        w, a, b, cost = torch.from_numpy(stored[0]).to(self.device).unbind()
        return PlaneHypotheses(w, a, b), cost, stored[1]

    def _require_planes(self, index: int) -> tuple[PlaneHypotheses, torch.Tensor, int]:
        stored = self._read_hypotheses(index)
        assert stored is not None  # written in the pass before
        return stored

    def _consistent_planes(self, index: int) -> tuple[StereoView, PlaneHypotheses]:
        """The view and the consistent planes of a photo after the pass before; w = 0 elsewhere."""
        stored = priors.read_hypotheses(self.run, index, "consistent")
        assert stored is not None  # the consistency check follows the search
        return self.view(index, stored[1]), PlaneHypotheses(*torch.from_numpy(stored[0][:3]).to(self.device))

    def write_depth_map(self, index: int) -> tuple[float, float]:
        """Write the depth map; the share of pixels with a depth, and the median number of photos that confirm them."""
        stored = priors.read_hypotheses(self.run, index, "consistent")
        assert stored is not None
        w, count = stored[0][0], stored[0][3]
        depth = np.where(w > 0, 1.0 / np.maximum(w, 1e-9), 0.0)
        depth[speckles(depth)] = 0.0
        sigma = self._sensor_depth(index).sigma_per_unit if index in self.sensor else None
        priors.write_depth(self.run, index, depth, stored[1], sigma_per_unit=sigma)
        good = depth > 0
        return float(good.mean()), float(np.median(count[good])) if good.any() else 0.0

    def _read_gray(self, index: int, level: int) -> torch.Tensor:
        return torch.from_numpy(rgb_to_gray(posed_images.read_photo(self.run, index, level), 255.0)).to(self.device)

    def _inverse_depth_range(self, index: int) -> tuple[float, float] | None:
        """Range of inverse depths to sweep, from the SfM points in the image that the photo or a neighbor observes."""
        posed, neighbors = self.posed, self.neighbors[index]
        point_index = observed_points(self.visibility, [index, *neighbors])
        xy, depth = project(posed.cam_from_world[index], posed.intrinsics[index], posed.points_world[point_index])
        inside = is_in_image(xy, depth, posed.sizes[index])
        if inside.sum() < STEREO_PARAMS.min_range_points:
            return None
        nearest, farthest = np.percentile(depth[inside], STEREO_PARAMS.range_percentiles)
        return 1.0 / (farthest * STEREO_PARAMS.range_margin), STEREO_PARAMS.range_margin / nearest
