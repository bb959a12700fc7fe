"""Stereo as a job of an executor: committed once, by the driver; what stops it is raised."""

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster.executor import InlineExecutor, Job, Outcome
from cluster.priors import find_priors
from pipeline.errors import QuoinError
from pipeline.progress import Reporter
from pipeline.run import Run
from stages.priors.config import PriorsConfig
from tests import ball_scene

NONE = PriorsConfig(stereo_edge_px=0)


class Elsewhere(InlineExecutor):
    """Runs jobs as another process would get them, or fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("cpu")
        self.error, self.n_jobs = error, 0

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        self.n_jobs += len(jobs)
        if self.error is not None:
            return iter([Outcome(job, error=self.error) for job in jobs])
        return super().run(pickle.loads(pickle.dumps(jobs)), report)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return ball_scene.make_run(tmp_path, n_photos=4, width=64, height=48)


def test_done_by_the_executor_and_committed_once(run: Run) -> None:
    executor = Elsewhere()
    assert find_priors(run, NONE, executor, Reporter()).n_depth_maps == 0
    assert find_priors(run, NONE, executor, Reporter()).n_depth_maps == 0
    assert executor.n_jobs == 1
    assert run.manifest("priors") is not None


def test_what_stops_it_is_raised(run: Run) -> None:
    with pytest.raises(QuoinError, match="no GPU"):
        find_priors(run, NONE, Elsewhere(QuoinError("The Ray cluster has no GPU")), Reporter())
    assert run.manifest("priors") is None
