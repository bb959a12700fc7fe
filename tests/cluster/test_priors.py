"""Stereo by workers: committed once, by the driver; errors are raised; shared photos have the same depths."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import InlineWorkers, Outcome, Step, Task
from quoin.pipeline.scene import priors
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stage import PRIORS
from quoin.stages.priors.stereo.patchmatch import PatchMatchParams
from tests.fixtures import ball_scene

NONE = PriorsConfig(stereo_edge_px=0)


class Elsewhere(InlineWorkers):
    """Does tasks as another process would get them, or fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("cpu")
        self.error, self.n_tasks = error, 0

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        self.n_tasks += len(tasks)
        if self.error is not None:
            return iter([Outcome(task, error=self.error) for task in tasks])
        return super().map(*pickle.loads(pickle.dumps((step, tasks))), report)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return ball_scene.make_run(tmp_path, n_photos=4, width=64, height=48)


def test_done_by_the_workers_and_committed_once(run: Run) -> None:
    workers = Elsewhere()
    assert PRIORS(run, NONE, Reporter(), workers).n_depth_maps == 0
    assert PRIORS(run, NONE, Reporter(), workers).n_depth_maps == 0
    assert workers.n_tasks == 3
    assert run.manifest("priors") is not None


def test_what_stops_it_is_raised(run: Run) -> None:
    with pytest.raises(QuoinError, match="no GPU"):
        PRIORS(run, NONE, Reporter(), Elsewhere(QuoinError("The Ray cluster has no GPU")))
    assert run.manifest("priors") is None


class Two(Elsewhere):
    """Two workers, in words."""

    @contextmanager
    def session(self) -> Iterator[int]:
        yield 2


@pytest.mark.slow
def test_photos_shared_among_workers_have_the_same_depths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = PatchMatchParams(chunk_pixels_cpu=1 << 10, n_sweep_planes=8)
    monkeypatch.setattr("quoin.stages.priors.stereo.patchmatch.PATCHMATCH_PARAMS", params)
    monkeypatch.setattr("quoin.stages.priors.stage.MIN_PHOTOS_PER_TASK", 2)
    config = PriorsConfig(stereo_edge_px=64, sources=2)
    run = ball_scene.make_run(tmp_path, n_photos=7, width=64, height=48)
    alone = PRIORS(run, config, Reporter(), Elsewhere())
    depths = [priors.read_depth(run, i) for i in range(7)]
    run.invalidate("priors")
    arrays.delete_node(run.scene, "priors")
    said: list[str] = []
    together = Two()
    shared = PRIORS(run, config, Reporter(lambda event: said.append(event["name"])), together)
    assert together.n_tasks == 2 + 8 * 3
    assert "priors/search 4 3/3" in said
    assert shared.model_dump(exclude={"seconds"}) == alone.model_dump(exclude={"seconds"})
    assert shared.n_depth_maps == 7
    for i, depth in enumerate(depths):
        found = priors.read_depth(run, i)
        assert depth is not None and found is not None
        np.testing.assert_array_equal(found[0], depth[0])
    assert "planes" not in run.scene["priors/000000"]
