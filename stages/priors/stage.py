"""Dense depth of every posed photo, by a sensor or by stereo; believed where it agrees with that of others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.manhattan import read_trusted_frame
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.priors.cache_key import priors_key_inputs
from quoin.stages.priors.config import NEEDS, VERSION, PriorsConfig, PriorsResult
from quoin.stages.priors.exposures import EXPOSURE_EDGE_PX, estimate_exposures
from quoin.stages.priors.planar.regions import PlanarRegionStereo
from quoin.stages.priors.semantic.ade20k import label_photos
from quoin.stages.priors.sky.sky_labels import label_sky, sky_statistics
from quoin.stages.priors.stereo.depth_maps import STEREO_STEPS, StereoPhotos, StereoStep
from quoin.stages.priors.stereo.temporary_arrays import IN_PROGRESS, delete_temporary_arrays
from quoin.stages.priors.stereo.views import level_for_edge_px


class PriorsPreparation(NamedTuple):
    """What is known before stereo: photos with sky, its share of their pixels, seconds by part."""

    sky_photos: int
    sky_share: float
    seconds: dict[str, float]


def estimate_depths(run: Run, config: PriorsConfig, report: Reporter, device: str = "cpu") -> PriorsResult:
    """Labels and depth maps into the store; those of a sensor only where ``stereo_edge_px`` is 0.

    From coarse to fine; before each pass, every photo learns what its neighbours have come to believe. Work that was
    stopped goes on at the photo where it stopped.
    """
    preparation = prepare_priors(run, config, report, device)
    photos = StereoPhotos(run, config, device)
    for step in STEREO_STEPS:
        began = time.monotonic()
        photos.run_step(step, photos.depth_photos, report)
        preparation.seconds[step.name] = preparation.seconds.get(step.name, 0.0) + time.monotonic() - began
    return finalize_priors(run, config, preparation, report, device)


def run_step(
    run: Run, config: PriorsConfig, step: StereoStep, part: tuple[int, int], report: Reporter, device: str = "cpu"
) -> None:
    """A step for share k of n (from 0) of the photos, where others take the other shares."""
    photos, (k, n) = StereoPhotos(run, config, device), part
    photos.run_step(step, np.array_split(photos.depth_photos, n)[k].tolist(), report, f" {k + 1}/{n}")


def prepare_priors(run: Run, config: PriorsConfig, report: Reporter, device: str) -> PriorsPreparation:
    """Everything before stereo: exposures, sky, what a semantic model says."""
    key = run.key("priors", config, NEEDS, VERSION, priors_key_inputs(run, config))
    if "priors" not in run.scene or run.scene["priors"].attrs.get(IN_PROGRESS) != key:
        arrays.delete_node(run.scene, "priors")
    group = run.scene.require_group("priors")
    group.attrs[IN_PROGRESS] = key
    compute_exposures(run)
    began = time.monotonic()
    if config.semantic_model is not None:
        label_photos(run, Path(config.semantic_model), report, device)
    elif config.sky:
        label_sky(run, report)
    sky_photos, sky_share = sky_statistics(run, len(posed_images.read_posed(run)), report)
    return PriorsPreparation(sky_photos, sky_share, {"sky": time.monotonic() - began})


def finalize_priors(
    run: Run, config: PriorsConfig, preparation: PriorsPreparation, report: Reporter, device: str
) -> PriorsResult:
    """Everything after stereo: what is believed becomes depth maps, bare surfaces take planes."""
    photos = StereoPhotos(run, config, device)
    map_stats, seconds = [photos.write_depth_map(index) for index in photos.depth_photos], preparation.seconds
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
    """Depth of bare surfaces into the store, where walls have a frame; how many planes, and what share of pixels."""
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


run = stage(
    "priors",
    needs=NEEDS,
    version=VERSION,
    result=PriorsResult,
    inputs=priors_key_inputs,
    cleanup=delete_temporary_arrays,
)(estimate_depths)
