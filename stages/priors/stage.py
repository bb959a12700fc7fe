"""The priors stage: dense depth of every posed photo, by a sensor or by stereo; sky; exposures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import zarr

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.workers import Task, map_all
from quoin.pipeline.scene.blocks import held_out_key
from quoin.pipeline.scene.posed_images import read_posed
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.layout import sha256_of
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import PROCESS_BYTES, Cost, Stage, StageContext, Workload
from quoin.stages.priors.config import PriorsConfig, PriorsResult

MIN_PHOTOS_PER_TASK = 16  # a worker first reads poses and points of all photos, whatever its share

# On two cores, from a finished demo (40 photos of 0.48 megapixels).
STEREO_SECONDS_PER_MPX = 8.8  # dense stereo, each photo compared with 8 others
SKY_SECONDS_PER_MPX = 0.6
STEREO_BYTES_PER_MPX = 22 << 20  # on disk

IN_PROGRESS = "in_progress"  # attribute of the priors in the store: the cache key of the unfinished work
TEMPORARY_ARRAYS = ("planes", "consistent")  # arrays of every photo


def estimate_priors(context: StageContext, config: PriorsConfig) -> PriorsResult:
    """Labels and depth maps of all photos in the store; stereo only where ``stereo_edge_px`` is not 0.

    Several workers share the photos: a step of stereo begins when all photos have done the step before. Work that was
    stopped resumes at the photos where it stopped.
    """
    from quoin.stages.priors import estimation  # imports torch
    from quoin.stages.priors.stereo.depth_maps import STEREO_STEPS

    run, report, workers = context.run, context.report, context.workers

    def map_tasks(step: Any, tasks: list[Task]) -> list[Any]:
        return map_all(workers, step, tasks, report)

    with workers.session() as n_workers:
        n_shares = count_shares(run, config, n_workers)
        key = PRIORS.key(run, config)
        [preparation] = map_tasks(estimation.prepare_priors, [Task("priors/begin", (run, config, key))])
        seconds = dict(preparation.seconds)
        for group in [STEREO_STEPS] if n_shares == 1 else [[step] for step in STEREO_STEPS]:
            name = "stereo" if n_shares == 1 else group[0].name
            shares = [(k, n_shares) for k in range(n_shares)]
            tasks = [Task(f"priors/{name} {k + 1}/{n}", (run, config, group, (k, n))) for k, n in shares]
            taken = map_tasks(estimation.run_stereo_steps, tasks)
            for step_name in taken[0]:
                seconds[step_name] = seconds.get(step_name, 0.0) + max(share[step_name] for share in taken)
        end = Task("priors/end", (run, config, preparation, seconds))
        [result] = map_tasks(estimation.finalize_priors, [end])
        return result


def count_shares(run: Run, config: PriorsConfig, n_workers: int) -> int:
    """In how many shares the photos are handed to so many workers."""
    if n_workers == 1 or not config.stereo_edge_px:
        return 1
    return max(1, min(2 * n_workers, len(read_posed(run)) // MIN_PHOTOS_PER_TASK))


def priors_key_inputs(run: Run, config: PriorsConfig) -> str:
    """Hash of what priors read beside poses and settings: which photos are held out, and the semantic model's file."""
    held_out = held_out_key(run)
    if config.semantic_model is None:
        return held_out
    try:
        return digest([held_out, sha256_of(Path(config.semantic_model))])
    except OSError as error:
        raise QuoinError(
            "The semantic model cannot be read", where=config.semantic_model, hint="name an ONNX or TorchScript file"
        ) from error


def estimate_priors_cost(workload: Workload, config: PriorsConfig) -> Cost:
    """Cost of dense stereo, which workers share, and of sky, which they do not."""
    stereo_mpx = stereo_megapixels(workload, config.stereo_edge_px) * config.sources / 8
    sky_s_per_mpx = SKY_SECONDS_PER_MPX if config.sky else 0.0
    return Cost(
        seconds=stereo_mpx * (STEREO_SECONDS_PER_MPX / workload.n_workers + sky_s_per_mpx),
        memory_bytes=PROCESS_BYTES,
        disk_bytes=int(stereo_mpx * STEREO_BYTES_PER_MPX),
        note=f"dense stereo of {workload.n_photos:,} photos",
    )


def stereo_megapixels(workload: Workload, edge_px: int) -> float:
    """Megapixels of all photos, halved until they are no longer than ``edge_px``; 0 where that is 0."""
    if not edge_px:
        return 0.0
    return workload.megapixels / 4 ** math.ceil(math.log2(max(workload.long_edge_px / edge_px, 1.0)))


def delete_temporary_arrays(run: Run) -> None:
    """Delete the temporary arrays; after the commit, since a run that is killed before it resumes from them."""
    group = arrays.find_node(run.scene, "priors")
    if not isinstance(group, zarr.Group) or IN_PROGRESS not in group.attrs:
        return
    for name in list(group.group_keys()):
        for kind in TEMPORARY_ARRAYS:
            arrays.delete_node(group, f"{name}/{kind}")
    del group.attrs[IN_PROGRESS]


PRIORS = Stage(
    name="priors",
    needs=("pose",),
    version=12,
    config=PriorsConfig,
    result=PriorsResult,
    run=estimate_priors,
    inputs=priors_key_inputs,
    estimate=estimate_priors_cost,
    cleanup=delete_temporary_arrays,
    is_begun=lambda run: arrays.exists(run.scene, "priors"),
    discard=lambda run: arrays.delete_node(run.scene, "priors"),
)
