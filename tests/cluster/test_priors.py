"""Stereo as jobs of an executor: committed once, by the driver; what stops it is raised."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from quoin.cluster.executor import InlineExecutor, Job, Outcome
from quoin.cluster.priors import estimate_priors
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import priors
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stereo.patchmatch import PatchMatchParams
from tests.fixtures import ball_scene

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
    assert estimate_priors(run, NONE, executor, Reporter()).n_depth_maps == 0
    assert estimate_priors(run, NONE, executor, Reporter()).n_depth_maps == 0
    assert executor.n_jobs == 1
    assert run.manifest("priors") is not None


def test_what_stops_it_is_raised(run: Run) -> None:
    with pytest.raises(QuoinError, match="no GPU"):
        estimate_priors(run, NONE, Elsewhere(QuoinError("The Ray cluster has no GPU")), Reporter())
    assert run.manifest("priors") is None


class Two(Elsewhere):
    """Two workers, in words."""

    @contextmanager
    def session(self) -> Iterator[int]:
        yield 2


def test_photos_shared_among_workers_have_the_same_depths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = PatchMatchParams(chunk_pixels_cpu=1 << 10, n_sweep_planes=8)
    monkeypatch.setattr("quoin.stages.priors.stereo.patchmatch.PATCHMATCH_PARAMS", params)
    monkeypatch.setattr("quoin.cluster.priors.MIN_PHOTOS_PER_JOB", 2)
    config = PriorsConfig(stereo_edge_px=64, sources=2)
    run = ball_scene.make_run(tmp_path, n_photos=7, width=64, height=48)
    alone = estimate_priors(run, config, Elsewhere(), Reporter())
    depths = [priors.read_depth(run, i) for i in range(7)]
    run.invalidate("priors")
    arrays.delete_node(run.scene, "priors")
    said: list[str] = []
    together = Two()
    shared = estimate_priors(run, config, together, Reporter(lambda event: said.append(event["name"])))
    assert together.n_jobs == 2 + 8 * 3
    assert "priors/search 4 3/3" in said
    assert shared.model_dump(exclude={"seconds"}) == alone.model_dump(exclude={"seconds"})
    assert shared.n_depth_maps == 7
    for i, depth in enumerate(depths):
        found = priors.read_depth(run, i)
        assert depth is not None and found is not None
        np.testing.assert_array_equal(found[0], depth[0])
    assert "planes" not in run.scene["priors/000000"]
