"""Fusion by several workers: the same mesh as in one process, also where some of them die."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import InlineWorkers, Outcome, Step, Task
from quoin.pipeline.storage.object_store import Bucket
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.config import FuseConfig, FuseResult
from quoin.stages.fuse.stage import FUSE
from tests.fixtures import synthetic
from tests.fixtures.ply_files import read_ply
from tests.fixtures.stand_in_workers import Several
from tests.stages.fuse.test_stage import make_scene

CONFIG = FuseConfig(glb_faces=1000, island_diameter=0.08)


class Three(Several):
    """Every ``again``-th task is done twice; with ``homes`` each has a machine of its own, with files there."""

    def __init__(self, again: int = 0, error: Exception | None = None, homes: Path | None = None) -> None:
        super().__init__()
        self.again, self.error, self.homes = again, error, homes

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        for task in tasks:
            self.names.append(task.name)
            if self.error is not None:
                yield Outcome(task, error=self.error)
                continue
            if self.again and len(self.names) % self.again == 0:  # its worker was lost when it was nearly done
                self.elsewhere(step, task, report)
            yield self.elsewhere(step, task, report, self.homes and self.homes / f"machine{len(self.names)}")


def wavy_ball(folder: Path, url: str | None = None, heights: tuple[float, ...] = (-2.0, 0.0, 2.0)) -> Run:
    """A wavy ball and an island, in two blocks, seen from rings of cameras."""
    ball, speck = synthetic.wavy(synthetic.sphere(1.0), 0.02, 0.8, 1), synthetic.sphere(0.06, (0.0, 1.25, 0.02))
    return make_scene(folder, [lambda p: np.minimum(ball(p), speck(p))] * 2, heights=heights, url=url)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are worth a worker."""
    monkeypatch.setattr("quoin.stages.fuse.tiles.TILE_BRICKS", 1)
    monkeypatch.setattr("quoin.stages.fuse.mesh_chunks.HALO_TILES", 4)
    monkeypatch.setattr("quoin.stages.fuse.stage.MIN_CHUNK_FACES", 500)


@pytest.fixture
def made(tmp_path: Path, small_parts: None) -> Run:
    """The ball in a folder."""
    return wavy_ball(tmp_path)


def facts(result: FuseResult) -> dict[str, Any]:
    return result.model_dump(exclude={"seconds", "area_m2", "largest_component_share", "confident_share"})


@pytest.mark.parametrize("again", [0, 3])
@pytest.mark.slow
def test_the_mesh_is_that_of_one_process(made: Run, again: int) -> None:
    killed = made.path / "work" / "fuse" / "00007-gathered.npz"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"of an attempt by others that was killed")
    alone = FUSE(made, CONFIG, Reporter(), InlineWorkers())
    assert not killed.parent.exists()
    one = read_ply(made.path / "mesh.ply")
    made.invalidate("fuse")
    workers = Three(again)
    shared = FUSE(made, CONFIG, Reporter(), workers)
    many = read_ply(made.path / "mesh.ply")
    assert {name.split()[0] for name in workers.names} == {
        f"fuse/{step}"
        for step in ("march", "gather", "hide", "observe", "sample", "color", "clean", "connect", "finish")
    }
    assert sum(name.startswith("fuse/observe") for name in workers.names) >= 6
    assert {**facts(shared), "disagreement": 0, "glb_faces": 0} == {**facts(alone), "disagreement": 0, "glb_faces": 0}
    assert shared.area_m2 == pytest.approx(alone.area_m2, rel=1e-6)
    order, sorted_ = (np.lexsort(mesh.vertices_world.T) for mesh in (one, many))
    np.testing.assert_array_equal(one.vertices_world[order], many.vertices_world[sorted_])
    np.testing.assert_allclose(many.values["views"][sorted_], one.values["views"][order])
    assert not (made.path / "work" / "fuse").exists()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.slow
def test_a_run_at_a_url_is_fused_by_workers_that_share_nothing_else(bucket: str, tmp_path: Path) -> None:
    in_folder = FUSE(wavy_ball(tmp_path, heights=(0.0,)), CONFIG, Reporter(), Three())
    run, workers = wavy_ball(tmp_path / "other", f"{bucket}/run", (0.0,)), Three(homes=tmp_path)
    at_url = FUSE(run, CONFIG, Reporter(), workers)
    assert sum(name.startswith("fuse/observe") for name in workers.names) >= 6
    assert at_url.model_dump(exclude={"seconds"}) == in_folder.model_dump(exclude={"seconds"})
    assert len(read_ply(run.file("mesh.ply")).faces) == in_folder.n_faces
    assert not [name for name, _, _ in Bucket(f"{bucket}/run").list_objects() if name.startswith("work/fuse")]
    assert not list(tmp_path.glob("machine*/cache/runs/*/work/fuse"))


@pytest.mark.slow
def test_what_stops_a_part_stops_the_stage_and_leaves_nothing_of_the_work(made: Run) -> None:
    with pytest.raises(QuoinError, match="no disk"):
        FUSE(made, CONFIG, Reporter(), Three(error=QuoinError("There is no disk")))
    assert made.manifest("fuse") is None
    assert not (made.path / "work" / "fuse").exists()
    assert FUSE(made, CONFIG, Reporter(), Three()).n_components == 1
