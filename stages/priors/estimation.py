"""The steps of the priors stage, as workers do them: preparation, dense stereo, depth maps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quoin.fields.device import pick_device
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import TaskContext
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.manhattan import read_trusted_frame
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig, PriorsResult
from quoin.stages.priors.exposures import EXPOSURE_EDGE_PX, estimate_exposures
from quoin.stages.priors.planar_regions import PlanarRegionStereo
from quoin.stages.priors.semantic_labels import label_photos
from quoin.stages.priors.sky_labels import label_sky, sky_statistics
from quoin.stages.priors.stage import IN_PROGRESS
from quoin.stages.priors.stereo.depth_maps import StereoPhotos, StereoStep
from quoin.stages.priors.stereo.views import level_for_edge_px


class PriorsPreparation(NamedTuple):
    """Results of the work before stereo: photos with sky, its share of their pixels, seconds by part."""

    sky_photos: int
    sky_share: float
    seconds: dict[str, float]


def prepare_priors(context: TaskContext, run: Run, config: PriorsConfig, key: str) -> PriorsPreparation:
    """Everything before stereo: exposures, sky, semantic labels. Priors begun under another ``key`` are removed."""
    report = context.report
    if "priors" not in run.scene or run.scene["priors"].attrs.get(IN_PROGRESS) != key:
        arrays.delete_node(run.scene, "priors")
    group = run.scene.require_group("priors")
    group.attrs[IN_PROGRESS] = key
    compute_exposures(run)
    began = time.monotonic()
    if config.semantic_model is not None:
        label_photos(run, Path(config.semantic_model), report, pick_device(context.device))
    elif config.sky:
        label_sky(run, report)
    sky_photos, sky_share = sky_statistics(run, len(posed_images.read_posed(run)), report)
    return PriorsPreparation(sky_photos, sky_share, {"sky": time.monotonic() - began})


def run_stereo_steps(
    context: TaskContext, run: Run, config: PriorsConfig, steps: Sequence[StereoStep], share: tuple[int, int]
) -> dict[str, float]:
    """Stereo steps for share k of n (from 0) of the photos; returns seconds by name of step.

    From coarse to fine; before each pass, every photo reads which planes its neighbors found to be consistent.
    """
    photos, (k, n) = StereoPhotos(run, config, pick_device(context.device)), share
    indices = np.array_split(photos.depth_photos, n)[k].tolist()
    seconds: dict[str, float] = {}
    for step in steps:
        began = time.monotonic()
        photos.run_step(step, indices, context.report, f" {k + 1}/{n}" if n > 1 else "")
        seconds[step.name] = seconds.get(step.name, 0.0) + time.monotonic() - began
    return seconds


def finalize_priors(
    context: TaskContext,
    run: Run,
    config: PriorsConfig,
    preparation: PriorsPreparation,
    seconds: dict[str, float],
) -> PriorsResult:
    """Everything after stereo: consistent depths become depth maps, textureless surfaces take planes."""
    photos, report = StereoPhotos(run, config, pick_device(context.device)), context.report
    map_stats, seconds = [photos.write_depth_map(index) for index in photos.depth_photos], dict(seconds)
    n_planes, planar_share = add_planar_regions(
        run, config, photos.neighbors, photos.depth_photos, report, seconds, photos.device
    )
    return PriorsResult(
        n_depth_maps=len(map_stats),
        n_sensor_maps=len(photos.sensor),
        consistent_share=float(np.mean([share for share, _ in map_stats])) if map_stats else 0.0,
        median_consistent_views=float(np.median([agreeing for _, agreeing in map_stats])) if map_stats else 0.0,
        edge_px=config.stereo_edge_px,
        n_planes=n_planes,
        planar_share=planar_share,
        sky_photos=preparation.sky_photos,
        sky_share=preparation.sky_share,
        seconds=seconds,
    )


def add_planar_regions(
    run: Run,
    config: PriorsConfig,
    neighbors: list[list[int]],
    depth_photos: list[int],
    report: Reporter,
    seconds: dict[str, float],
    device: str,
) -> tuple[int, float]:
    """Depth of textureless surfaces into the store, given a Manhattan frame; number of planes, share of pixels."""
    walls = read_trusted_frame(run)
    if not (config.planes and depth_photos) or walls is None:
        return 0, 0.0
    axes = np.concatenate([walls.up_world[None], walls.normals_world])
    return PlanarRegionStereo(run, neighbors, depth_photos, np.concatenate([axes, -axes]), device).label_all(
        report, seconds
    )


def compute_exposures(run: Run) -> None:
    """Exposures of all photos into the store."""
    posed = posed_images.without_photos(posed_images.read_posed(run), read_held_out(run))

    def read(index: int) -> np.ndarray:
        return posed_images.read_photo(run, index, level_for_edge_px(posed.sizes[index], EXPOSURE_EDGE_PX))

    tracks = posed.track_photo, posed.track_point, posed.track_xy
    priors.write_exposures(run, estimate_exposures(read, posed.sizes, *tracks, seed=run.seed))
