"""Dense depth of every posed photo, by a sensor or by stereo; believed where it agrees with that of others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.manhattan import trusted_walls
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.priors.cache_key import inputs
from quoin.stages.priors.config import NEEDS, VERSION, PriorsConfig, PriorsResult
from quoin.stages.priors.exposures import EDGE_PX, exposures
from quoin.stages.priors.planar.regions import BarePhotos
from quoin.stages.priors.semantic.ade20k import label_photos
from quoin.stages.priors.sky.sky_labels import label_skies, sky_found
from quoin.stages.priors.stereo.depth_maps import STEPS, Photos, Step
from quoin.stages.priors.stereo.temporary_arrays import HALF_DONE, forget_work
from quoin.stages.priors.stereo.views import level_within


class Begun(NamedTuple):
    """What is known before stereo: photos with sky, its share of their pixels, seconds by part."""

    sky_photos: int
    sky_share: float
    seconds: dict[str, float]


def find_depths(run: Run, config: PriorsConfig, report: Reporter, device: str = "cpu") -> PriorsResult:
    """Labels and depth maps into the store; those of a sensor only where ``stereo_edge_px`` is 0.

    From coarse to fine; before each pass, every photo learns what its neighbours have come to believe. Work that was
    stopped goes on at the photo where it stopped.
    """
    begun = begin(run, config, report, device)
    photos = Photos(run, config, device)
    for step in STEPS:
        began = time.monotonic()
        photos.visit(step, photos.todo, report)
        begun.seconds[step.name] = begun.seconds.get(step.name, 0.0) + time.monotonic() - began
    return end(run, config, begun, report, device)


def visit(
    run: Run, config: PriorsConfig, step: Step, share: tuple[int, int], report: Reporter, device: str = "cpu"
) -> None:
    """A step for share k of n (from 0) of the photos, where others take the other shares."""
    photos, (k, n) = Photos(run, config, device), share
    photos.visit(step, np.array_split(photos.todo, n)[k].tolist(), report, f" {k + 1}/{n}")


def begin(run: Run, config: PriorsConfig, report: Reporter, device: str) -> Begun:
    """Everything before stereo: exposures, sky, what a semantic model says."""
    key = run.key("priors", config, NEEDS, VERSION, inputs(run, config))
    if "priors" not in run.scene or run.scene["priors"].attrs.get(HALF_DONE) != key:
        arrays.delete(run.scene, "priors")
    work = run.scene.require_group("priors")
    work.attrs[HALF_DONE] = key
    find_exposures(run)
    began = time.monotonic()
    if config.semantic_model is not None:
        label_photos(run, Path(config.semantic_model), report, device)
    elif config.sky:
        label_skies(run, report)
    sky_photos, sky_share = sky_found(run, len(posed_images.read_posed(run)), report)
    return Begun(sky_photos, sky_share, {"sky": time.monotonic() - began})


def end(run: Run, config: PriorsConfig, begun: Begun, report: Reporter, device: str) -> PriorsResult:
    """Everything after stereo: what is believed becomes depth maps, bare surfaces take planes."""
    photos = Photos(run, config, device)
    told, seconds = [photos.finish(index) for index in photos.todo], begun.seconds
    n_planes, bare_share = lay_out_bare(run, config, photos.neighbours, photos.todo, report, seconds, photos.device)
    return PriorsResult(
        n_depth_maps=len(told),
        n_sensor_maps=len(photos.sensor),
        believed_share=float(np.mean([share for share, _ in told])) if told else 0.0,
        median_agreeing=float(np.median([agreeing for _, agreeing in told])) if told else 0.0,
        edge_px=config.stereo_edge_px,
        n_planes=n_planes,
        bare_share=bare_share,
        sky_photos=begun.sky_photos,
        sky_share=begun.sky_share,
        seconds=seconds,
    )


def lay_out_bare(
    run: Run,
    config: PriorsConfig,
    neighbours: list[list[int]],
    todo: list[int],
    report: Reporter,
    seconds: dict[str, float],
    device: str,
) -> tuple[int, float]:
    """Depth of bare surfaces into the store, where walls have a frame; how many planes, and what share of pixels."""
    walls = trusted_walls(run)
    if not (config.planes and todo) or walls is None:
        return 0, 0.0
    axes = np.concatenate([walls.up_world[None], walls.normals_world])
    return BarePhotos(run, neighbours, todo, np.concatenate([axes, -axes]), device).find(report, seconds)


def find_exposures(run: Run) -> None:
    """Exposures of all photos into the store."""
    posed = posed_images.hide(posed_images.read_posed(run), read_held_out(run))

    def read(index: int) -> np.ndarray:
        return posed_images.read_photo(run, index, level_within(posed.sizes[index], EDGE_PX))

    tracks = posed.track_photo, posed.track_point, posed.track_xy
    priors.write_exposures(run, exposures(read, posed.sizes, *tracks, seed=run.seed))


run = stage("priors", needs=NEEDS, version=VERSION, result=PriorsResult, inputs=inputs, after=forget_work)(find_depths)
