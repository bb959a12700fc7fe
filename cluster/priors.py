"""Stereo on an executor, so that it runs where the devices are, and its photos are shared among them."""

from __future__ import annotations

import functools
import time
from typing import Any

from quoin.cluster.executor import Executor, Job, run_jobs
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.posed_images import read_posed
from quoin.pipeline.storage.fencing import Attempt
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.priors.cache_key import priors_key_inputs
from quoin.stages.priors.config import NEEDS, VERSION, PriorsConfig, PriorsResult
from quoin.stages.priors.stereo.temporary_arrays import delete_temporary_arrays

MIN_PHOTOS_PER_JOB = 16  # at least: whoever takes a share reads the poses and points of all photos first


def estimate_priors(run: Run, config: PriorsConfig, executor: Executor, report: Reporter) -> PriorsResult:
    """The priors stage; raises what stopped it. Started again, it goes on at the photos where it stopped."""

    def work(run: Run, config: PriorsConfig, report: Reporter) -> PriorsResult:
        with executor.session() as n_workers:
            if n_workers > 1 and config.stereo_edge_px:
                n_jobs = min(2 * n_workers, len(read_posed(run)) // MIN_PHOTOS_PER_JOB)
                if n_jobs > 1:
                    return _run_shared(run, config, executor, report, n_jobs)
            return run_jobs(executor, [_job("priors", "estimate_depths", run, config)], report)[0]

    made = stage(
        "priors",
        needs=NEEDS,
        version=VERSION,
        result=PriorsResult,
        inputs=priors_key_inputs,
        cleanup=delete_temporary_arrays,
    )(work)
    return made(run, config, report)


def _run_shared(run: Run, config: PriorsConfig, executor: Executor, report: Reporter, n_jobs: int) -> PriorsResult:
    """Every step of stereo in ``n_jobs`` shares; a step begins when the one before is done for all photos."""
    from quoin.stages.priors.stereo.depth_maps import STEREO_STEPS

    [state] = run_jobs(executor, [_job("priors/begin", "prepare_priors", run, config)], report)
    for step in STEREO_STEPS:
        began, shares = time.monotonic(), [(k, n_jobs) for k in range(n_jobs)]
        names = [f"priors/{step.name} {k + 1}/{n_jobs}" for k, _ in shares]
        jobs = [_job(name, "run_step", run, config, step, share) for name, share in zip(names, shares, strict=True)]
        run_jobs(executor, jobs, report)
        state.seconds[step.name] = state.seconds.get(step.name, 0.0) + time.monotonic() - began
    return run_jobs(executor, [_job("priors/end", "finalize_priors", run, config, state)], report)[0]


def _job(name: str, work: str, run: Run, config: PriorsConfig, *arguments: Any) -> Job:
    """``work``: a function of stages.priors.stage of (run, config, *more, report, device)."""
    return Job(name, functools.partial(_run_step, work, run.location, config, arguments))


def _run_step(
    work: str,
    run_location: str,
    config: PriorsConfig,
    arguments: tuple,
    report: Reporter,
    device: str,
    attempt: Attempt,
) -> Any:
    from quoin.stages.priors import stage as priors  # torch is loaded where the work is done

    del attempt  # what an earlier one leaves of a photo is the same
    return getattr(priors, work)(Run.open(run_location), config, *arguments, report, device)
