"""Stereo as one job of an executor, so that it runs where the device is, and not where the driver happens to be."""

from __future__ import annotations

import functools

from cluster.executor import Executor, Job
from pipeline.attempt import Attempt
from pipeline.progress import Reporter
from pipeline.run import Run, stage
from stages.priors.config import NEEDS, VERSION, PriorsConfig, PriorsResult
from stages.priors.key import inputs


def find_priors(run: Run, config: PriorsConfig, executor: Executor, report: Reporter) -> PriorsResult:
    """The priors stage; raises what stopped it. Started again, it goes on at the photo where it stopped."""

    def work(run: Run, config: PriorsConfig, report: Reporter) -> PriorsResult:
        job = Job("priors", functools.partial(_find, run.home, config))
        [outcome] = executor.run([job], report)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    made = stage("priors", needs=NEEDS, version=VERSION, result=PriorsResult, inputs=inputs)(work)
    return made(run, config, report)


def _find(run_place: str, config: PriorsConfig, report: Reporter, device: str, attempt: Attempt) -> PriorsResult:
    del attempt  # what an earlier one leaves of a photo is the same
    from stages.priors.run import find_depths

    return find_depths(Run.open(run_place), config, report, device)
