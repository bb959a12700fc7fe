"""Stereo of all photos, from coarse to fine: each searches its planes, then keeps those that its neighbours confirm."""

from __future__ import annotations

import functools
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
from quoin.stages.priors.stereo.consistency import geometric_consistency, local_support
from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses, local_contrast, upsample_planes
from quoin.stages.priors.stereo.patchmatch import PROPAGATION_REACHES_PX, PatchMatch
from quoin.stages.priors.stereo.reprojection import reproject_planes
from quoin.stages.priors.stereo.sensor_planes import sensor_planes
from quoin.stages.priors.stereo.speckles import speckles
from quoin.stages.priors.stereo.views import StereoView, level_for_edge_px

COARSEST_EDGE_PX = 128
MIN_CONSISTENCY_VIEWS = 10  # photos whose planes are compared with a photo's own, or as many as it is searched in
MIN_LOCAL_CONTRAST = (
    0.004  # standard deviation of gray about a pixel, of 1: flatter is sky, or the sky beside a chimney
)
RANGE_MARGIN = 1.3  # the sweep goes this factor beyond the nearest and farthest SfM point a photo knows of


class PatchMatchPass(NamedTuple):
    """One visit of all photos: how many levels above the finest, and rounds of trying."""

    levels_above_finest: int
    iterations: int
    perturbation_px: float  # pixels in the sources by which depths are changed at random, in the first round


PATCHMATCH_PASSES = (
    PatchMatchPass(3, 6, 2.0),
    PatchMatchPass(2, 3, 1.0),
    PatchMatchPass(1, 2, 1.0),
    PatchMatchPass(0, 1, 0.5),
)


class StereoStep(NamedTuple):
    """What all photos do, in any order, before any does the next step."""

    kind: Literal["search", "believe"]
    pass_index: int  # of the pass

    @property
    def name(self) -> str:
        return f"search {self.pass_index + 1}" if self.kind == "search" else "agreement"


STEREO_STEPS = [
    step
    for pass_index in range(len(PATCHMATCH_PASSES))
    for step in (StereoStep("search", pass_index), StereoStep("believe", pass_index))
]


class StereoPhotos:
    """The posed photos as stereo views, a few in memory at a time; their planes go through the store.

    ``depth_photos``: those that have a depth map in the end.
    """

    def __init__(self, run: Run, config: PriorsConfig, device: str) -> None:
        self.run, self.config, self.device = run, config, device
        held_out = read_held_out(run)
        self.posed = posed = add_sensor_points(run, posed_images.read_posed(run), held_out)
        self.visibility = observation_matrix(len(posed), len(posed.points_world), posed.track_photo, posed.track_point)
        used = np.setdiff1d(np.arange(len(posed)), held_out)
        cameras = posed.cam_from_world[used], posed.intrinsics[used], posed.sizes[used]
        chosen = source_photos(
            *cameras, self.visibility[used], posed.points_world, max(MIN_CONSISTENCY_VIEWS, config.sources)
        )
        self.neighbors: list[list[int]] = [[] for _ in range(len(posed))]
        for index, row in zip(used, chosen, strict=True):
            self.neighbors[index] = used[row[row >= 0]].tolist()
        self.sensor = {i for i in used.tolist() if read_sensor_depth(run, i) is not None}
        edge_px = config.stereo_edge_px or COARSEST_EDGE_PX
        self.finest_level = [level_for_edge_px(size, edge_px) for size in posed.sizes]
        self.coarsest_level = [level_for_edge_px(size, min(COARSEST_EDGE_PX, edge_px)) for size in posed.sizes]
        self.inverse_depth_range = [self._inverse_depth_range(i) for i in range(len(posed))]
        self.depth_photos = [
            i for i in range(len(posed)) if i in self.sensor or (config.stereo_edge_px and self._can_search(i))
        ]
        self.gray = functools.lru_cache(maxsize=64)(self._read_gray)
        self.up = torch.tensor([0.0, 0.0, 1.0], device=device)

    def run_step(self, step: StereoStep, indices: list[int], report: Reporter, progress_suffix: str = "") -> None:
        """Do a step for some photos, whose neighbours have done the step before; ``progress_suffix`` tells which in
        progress."""
        if step.pass_index < len(PATCHMATCH_PASSES) - 1 and self.sensor.issuperset(self.depth_photos):
            return  # nothing is searched: one look at what agrees
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
        """Improve a photo's planes, at the level pass ``pass_index`` works at; those of a sensor are taken as they
        are."""
        if priors.count_hypothesis_passes(self.run, index, "planes") > pass_index:
            return
        if index in self.sensor:
            stored = self._sensor_depth(index)
            planes = sensor_planes(torch.from_numpy(stored.depth))
            stacked = torch.stack([*planes, torch.zeros_like(planes.w)]).numpy()
            priors.write_hypotheses(self.run, index, "planes", stacked, stored.level, n_passes=len(PATCHMATCH_PASSES))
            return
        step, previous = PATCHMATCH_PASSES[pass_index], self._read_hypotheses(index)
        if previous is None and pass_index:  # who wrote them was killed: once more from the beginning
            for earlier in range(pass_index):
                self.search(index, earlier)
            previous = self._read_hypotheses(index)
        level = min(self.finest_level[index] + step.levels_above_finest, self.coarsest_level[index])
        chosen = self.neighbors[index][: self.config.sources]
        sources = [
            self.view(s, min(self.finest_level[s] + step.levels_above_finest, self.coarsest_level[s])) for s in chosen
        ]
        inverse_depth_range = self.inverse_depth_range[index]
        assert inverse_depth_range is not None  # photos without a range are not in todo
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
        for iteration in range(step.iterations):
            search.propagate(PROPAGATION_REACHES_PX[iteration % len(PROPAGATION_REACHES_PX)])
            search.refine_slant()
            search.perturb(step.perturbation_px * 0.5**iteration)
        stacked = torch.stack([*search.planes, search.cost]).cpu().numpy()
        priors.write_hypotheses(self.run, index, "planes", stacked, level, n_passes=pass_index + 1)

    def filter_consistent(self, index: int, pass_index: int) -> None:
        """Keep the planes that neighbours confirm, theirs or those around them, and by how many."""
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
        if index in self.sensor:  # measured, not matched: enough that no more photos see through it than agree
            good = (planes.w > 0) & (violations <= count)
            mask = np.where(pixel_labels == labels.TRANSIENT, 0, mask)
        else:
            good = (local_support(planes, count, violations) > self.config.min_support) & (cost < self.config.max_cost)
            good &= local_contrast(self.gray(index, level)) > MIN_LOCAL_CONTRAST
            mask = np.where(np.isin(pixel_labels, labels.NON_SURFACE_LABELS), 0, mask)
        good &= torch.from_numpy(mask > 127).to(self.device)
        consistent = torch.stack([torch.where(good, 1.0 / mean.clamp(min=1e-9), 0.0), planes.a, planes.b, count])
        priors.write_hypotheses(self.run, index, "consistent", consistent.cpu().numpy(), level, n_passes=pass_index + 1)

    def _sensor_depth(self, index: int) -> SensorDepth:
        stored = read_sensor_depth(self.run, index)
        assert stored is not None  # it is in self.sensor
        return stored

    def _read_hypotheses(self, index: int) -> tuple[PlaneHypotheses, torch.Tensor, int] | None:
        """The planes a photo has so far, their cost, and their level."""
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
        """The planes a photo believed at the end of the pass before, w = 0 elsewhere."""
        stored = priors.read_hypotheses(self.run, index, "consistent")
        assert stored is not None  # believe follows search
        return self.view(index, stored[1]), PlaneHypotheses(*torch.from_numpy(stored[0][:3]).to(self.device))

    def write_depth_map(self, index: int) -> tuple[float, float]:
        """Leave the believed depths; the share of pixels that is believed, and by how many others in the median."""
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
        """Inverse depths to sweep, from the points in the photo's frame that it or one of its neighbours sees."""
        posed, neighbors = self.posed, self.neighbors[index]
        point_index = observed_points(self.visibility, [index, *neighbors])
        xy, depth = project(posed.cam_from_world[index], posed.intrinsics[index], posed.points_world[point_index])
        inside = is_in_image(xy, depth, posed.sizes[index])
        if inside.sum() < 8:
            return None
        nearest, farthest = np.percentile(depth[inside], [0.5, 99.5])
        return 1.0 / (farthest * RANGE_MARGIN), RANGE_MARGIN / nearest
