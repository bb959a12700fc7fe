"""The steps of the priors stage, as workers do them: preparation, dense stereo, depth maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.fields.device import pick_device
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import TaskContext
from quoin.pipeline.imaging.exposure import photo_gains
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.manhattan import read_trusted_frame
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig, PriorsResult
from quoin.stages.priors.planar_regions import PlanarRegionStereo
from quoin.stages.priors.semantic_labels import label_photos
from quoin.stages.priors.sky_labels import label_sky, sky_statistics
from quoin.stages.priors.stage import IN_PROGRESS
from quoin.stages.priors.stereo.depth_maps import StereoPhotos, StereoStep
from quoin.stages.priors.stereo.views import level_for_edge_px

Array = np.ndarray

VIEWS_PER_POINT = 6  # observations of a point that are compared
EXPOSURE_EDGE_PX = 400  # longest edge of the photos colors are read from: a pixel averages the feature's surroundings


class PriorsPreparation(NamedTuple):
    """Results of the work before stereo: photos with sky, its share of their pixels, seconds by part."""

    sky_photos: int
    sky_share: float
    seconds: dict[str, float]


def prepare_priors(context: TaskContext, run: Run, config: PriorsConfig, key: str) -> PriorsPreparation:
    """Everything before stereo: exposures, sky, semantic labels. Priors begun under another ``key`` are removed."""
    report = context.report
    if arrays.read_attributes(run.scene, "priors").get(IN_PROGRESS) != key:
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


# -- exposures: one estimate for all blocks, from colors of SfM points -------------------------------------------------


def compute_exposures(run: Run) -> None:
    """Exposures of all photos into the store."""
    posed = posed_images.without_photos(posed_images.read_posed(run), read_held_out(run))

    def read(index: int) -> np.ndarray:
        return posed_images.read_photo(run, index, level_for_edge_px(posed.sizes[index], EXPOSURE_EDGE_PX))

    tracks = posed.track_photo, posed.track_point, posed.track_xy
    priors.write_exposures(run, estimate_exposures(read, posed.sizes, *tracks, seed=run.seed))


def sample_views(track_point: Int[Array, "t"], seed: int) -> Int[Array, "s 2"]:
    """Up to VIEWS_PER_POINT random observations of every point: rows (observation, rank among those of its point)."""
    shuffled = np.random.default_rng(seed).permutation(len(track_point))
    order = shuffled[np.argsort(track_point[shuffled], kind="stable")]
    point = track_point[order]
    first = np.flatnonzero(np.diff(point, prepend=-1))
    place = np.arange(len(point)) - np.repeat(first, np.diff(first, append=len(point)))
    few = place < VIEWS_PER_POINT
    return np.stack([order[few], place[few]], axis=1)


def estimate_exposures(
    read: Callable[[int], UInt8[Array, "h w 3"]],
    sizes: Int[Array, "n 2"],
    track_photo: Int[Array, "t"],
    track_point: Int[Array, "t"],
    track_xy: Float[Array, "t 2"],
    *,
    seed: int,
) -> Float[Array, "n 3"]:
    """Exposure factor of every photo and channel, about 1; exactly 1 for a photo that shares no point with another.

    ``read(photo)`` returns its pixels at any size; ``track_xy`` are pixels of images of ``sizes`` (width, height).
    """
    observation, place = sample_views(track_point, seed).T
    points, row = np.unique(track_point[observation], return_inverse=True)
    shape = len(points), VIEWS_PER_POINT
    rgb, photo, is_observed = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.int64), np.zeros(shape, bool)
    photo[row, place], is_observed[row, place] = track_photo[observation], True
    for index in np.unique(track_photo[observation]):
        of_photo = track_photo[observation] == index
        image = read(int(index))
        ratio = np.array(image.shape[1::-1]) / sizes[index]
        column, line = (track_xy[observation[of_photo]] * ratio).astype(np.int64).clip(0).T
        column, line = column.clip(max=image.shape[1] - 1), line.clip(max=image.shape[0] - 1)
        rgb[row[of_photo], place[of_photo]] = image[line, column]
    return photo_gains(rgb, photo, is_observed, len(sizes), seed=seed)
