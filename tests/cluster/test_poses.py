"""Poses by several workers: the same as in one process, whoever finds features and matches and undistorts photos."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quoin.cluster.ray_workers import RayWorkers
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import InlineWorkers, Outcome, Step, Task, TaskContext
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.photo_table import read_photo_table, write_photo_table
from quoin.pipeline.storage.object_store import Bucket
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.stage import INGEST
from quoin.stages.pose import undistortion
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing import matching
from quoin.stages.pose.stage import POSE
from quoin.stages.pose.workspace import PhotosNotVisibleError
from tests.fixtures.stand_in_workers import Several
from tests.stages.pose.room import cameras_around, ingested, render, save, store_turned

CONFIG = PoseConfig(max_edge_px=400, max_features=600, threads=1)
N = 8


class Three(Several):
    """Tasks end in another order.

    With ``again`` every task is done twice, with ``last_stage`` only so many are done before there is an error; with
    ``homes`` each on a machine of its own, whose files are in a folder there; after ``gone_after`` sessions the cluster
    is gone.
    """

    def __init__(
        self, *, again: bool = False, last_stage: int = 1000, homes: Path | None = None, gone_after: int | None = None
    ) -> None:
        super().__init__()
        self.gone_after = gone_after
        self.sessions: list[set[str]] = []  # steps done in each
        self.again, self.last_stage, self.homes = again, last_stage, homes

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        for task in reversed(tasks):
            if len(self.names) == self.last_stage:
                yield Outcome(task, error=QuoinError("There is no disk"))
                return
            self.names.append(task.name)
            self.sessions[-1].add(task.name.partition(" ")[0])
            home = None if self.homes is None else self.homes / task.name.replace("/", " ")
            if self.again:
                self.elsewhere(step, task, report, home)
            yield self.elsewhere(step, task, report, home)

    @contextmanager
    def session(self) -> Iterator[int]:
        if self.gone_after is not None and len(self.sessions) >= self.gone_after:
            raise QuoinError("Ray cannot be reached", where="head:6379", hint="see quoin doctor")
        self.sessions.append(set())
        with super().session() as n:
            yield n
        self.sessions[-1].add("over")

    def did(self, step: str) -> int:
        return sum(name.startswith(f"pose/{step}") for name in self.names)


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (matching, undistortion):
        monkeypatch.setattr(module, "PHOTOS_PER_TASK", 3)
    monkeypatch.setattr("quoin.stages.pose.pairing.matching.PAIRS_PER_TASK_RANGE", (2, 6))
    monkeypatch.setattr("quoin.stages.pose.workspace.MAX_LOCAL_PHOTOS", 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Photos of a corner, stored in many orientations; the last has a mask."""
    folder, rows = tmp_path_factory.mktemp("corner"), []
    for index, pose in enumerate(cameras_around(N)):
        path = folder / f"corner {index}.jpg"
        save(path, render(pose), index + 1)
        rows.append({"path": str(path), "orientation": index + 1})
    mask = np.full((300, 400), 255, np.uint8)
    mask[:, :100] = 0
    Image.fromarray(np.ascontiguousarray(store_turned(mask, N))).save(folder / "mask.png")
    rows[-1]["mask_path"] = str(folder / "mask.png")
    return rows


@pytest.fixture(scope="module")
def alone(photos: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Posed by one process."""
    run = ingested(tmp_path_factory.mktemp("alone") / "run", photos)
    POSE(run, CONFIG, Reporter())
    return run


def rows(run: Run, table: str) -> list[tuple]:
    database = sqlite3.connect(run.path / "work" / "pose" / "database.db")
    found = database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    database.close()
    return found


def assert_same(one: Run, other: Run) -> None:
    for table in ("keypoints", "descriptors", "matches", "two_view_geometries"):
        assert rows(one, table) == rows(other, table), table
    here, there = posed_images.read_posed(one), posed_images.read_posed(other)
    np.testing.assert_array_equal(here.cam_from_world, there.cam_from_world)
    np.testing.assert_array_equal(here.points_world, there.points_world)
    for index in range(len(here)):
        for level in range(posed_images.PYRAMID_LEVELS):
            np.testing.assert_array_equal(
                posed_images.read_photo(one, index, level), posed_images.read_photo(other, index, level)
            )
        np.testing.assert_array_equal(posed_images.read_mask(one, index), posed_images.read_mask(other, index))
    assert one.require("pose").result == other.require("pose").result
    assert dict(one.scene["frame"].attrs) == dict(other.scene["frame"].attrs)


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_same_as_in_one_process(alone: Run, photos: list[dict], tmp_path: Path, again: bool) -> None:
    run, workers = ingested(tmp_path / "run", photos), Three(again=again)
    POSE(run, CONFIG, Reporter(), workers)
    assert (workers.did("extract_photo_features"), workers.did("undistort_photos")) == (3, 3)
    assert workers.did("match_photo_pairs") >= 5
    assert workers.sessions == [
        {"pose/extract_photo_features", "pose/match_photo_pairs", "over"},
        {"pose/undistort_photos", "over"},
    ]
    assert_same(alone, run)
    assert not (run.path / "work" / "pose" / "shared").exists()


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped_whoever_did_the_first_part(
    alone: Run, photos: list[dict], tmp_path: Path
) -> None:
    run = ingested(tmp_path / "run", photos)
    with pytest.raises(QuoinError, match="no disk"):
        POSE(run, CONFIG, Reporter(), Three(last_stage=5))  # features, and two portions of the pairs
    assert run.manifest("pose") is None
    workers = Three()
    POSE(run, CONFIG, Reporter(), workers)
    assert workers.did("extract_photo_features") == 0
    assert_same(alone, run)


@pytest.mark.slow
def test_photos_of_one_process_are_matched_by_many(alone: Run, photos: list[dict], tmp_path: Path) -> None:
    run = ingested(tmp_path / "run", photos)
    POSE(run, CONFIG, Reporter())
    database = sqlite3.connect(run.path / "work" / "pose" / "database.db")
    with database:
        for table in ("matches", "two_view_geometries"):
            database.execute(f"DELETE FROM {table}")
    database.close()
    run.invalidate("pose")
    workers = Three()
    POSE(run, CONFIG, Reporter(), workers)
    assert (workers.did("extract_photo_features"), workers.did("match_photo_pairs") > 4) == (0, True)
    assert_same(alone, run)


@pytest.mark.slow
def test_a_cluster_that_ended_while_the_driver_mapped_is_not_needed(
    alone: Run, photos: list[dict], tmp_path: Path
) -> None:
    run, workers, said = ingested(tmp_path / "run", photos), Three(gone_after=1), list[str]()
    POSE(run, CONFIG, Reporter(lambda event: said.append(str(event.get("message")))), workers)
    assert (workers.did("extract_photo_features"), workers.did("undistort_photos")) == (3, 0)
    assert any(text.startswith("Ray cannot be reached ('head:6379')") for text in said)
    assert_same(alone, run)


def test_few_photos_are_not_shared(photos: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quoin.stages.pose.workspace.MAX_LOCAL_PHOTOS", N)
    workers = Three()
    POSE(ingested(tmp_path / "run", photos), CONFIG, Reporter(), workers)
    assert workers.sessions == []


@pytest.mark.slow
def test_photos_and_run_at_a_url(
    alone: Run, photos: list[dict], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in alone.photos.iterdir():
        Bucket(f"{bucket}/photos").upload_file(path.name, path)
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "driver"))
    run = Run.create(f"{bucket}/run", photos=f"{bucket}/photos", settings={}, seed=alone.seed)
    table = [
        replace(
            row,
            path=str(run.photos / Path(row.path).name),
            mask_path=row.mask_path and str(run.photos / Path(row.mask_path).name),
        )
        for row in read_photo_table(alone)
    ]
    write_photo_table(run, table)
    run.storage.upload_outputs("ingest")
    run.commit("ingest", "k", StageResult(), 0.0)
    workers = Three(homes=tmp_path)
    POSE(run, CONFIG, Reporter(), workers)
    assert_same(alone, run)
    first = {path.name for path in tmp_path.glob("pose extract_photo_features 1 3/cache/photos/*/*")}
    assert first == {"corner 0.jpg", "corner 1.jpg", "corner 2.jpg"}
    assert not [name for name, _, _ in Bucket(f"{bucket}/run").list_objects() if "shared" in name]


@pytest.mark.slow
def test_workers_that_do_not_see_the_photos_still_match(alone: Run, photos: list[dict], tmp_path: Path) -> None:
    def unseen(run: Run, photo_ids: list[int]) -> None:
        raise PhotosNotVisibleError("Workers do not see the photos", where="a.jpg", hint="put them at a URL")

    run, workers, said = ingested(tmp_path / "run", photos), Three(), list[str]()
    with pytest.MonkeyPatch.context() as there:
        for module in (matching, undistortion):
            there.setattr(module, "read_visible_photos", unseen)
        POSE(run, CONFIG, Reporter(lambda event: said.append(str(event.get("message")))), workers)
    assert (
        workers.did("extract_photo_features"),
        workers.did("undistort_photos"),
        workers.did("match_photo_pairs") > 4,
    ) == (
        1,
        1,
        True,
    )
    assert sum("Workers do not see the photos ('a.jpg'). Put them at a URL." in text for text in said) == 2
    assert_same(alone, run)


def test_a_mask_that_a_worker_does_not_see_is_as_a_photo(photos: list[dict], tmp_path: Path) -> None:
    rows = [{**photo, "mask_path": str(tmp_path / "gone.png")} for photo in photos[:2]]
    run = ingested(tmp_path / "run", rows)
    with pytest.raises(PhotosNotVisibleError, match=r"gone\.png"):
        matching.extract_photo_features(TaskContext(), run, CONFIG, [0, 1], ([], []))


@pytest.mark.slow
def test_on_ray(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "strecha_castle_p30" / "images"
    if not folder.is_dir():
        pytest.skip("the photo set strecha_castle_p30 is not on this machine")
    monkeypatch.setattr(matching, "PHOTOS_PER_TASK", 8)
    monkeypatch.setattr(matching, "PAIRS_PER_TASK_RANGE", (50, 500))
    config, said, results = PoseConfig(max_edge_px=800, max_features=1500, threads=1), list[str](), []
    report = Reporter(lambda event: said.append(str(event)))
    for workers in (InlineWorkers(), RayWorkers("cpu", nodes.address, workers=2)):
        run = Run.create(tmp_path / str(len(results)), photos=folder, settings={}, seed=0)
        INGEST(run, IngestConfig(), Reporter())
        results.append(POSE(run, config, report, workers))
    assert results[1] == results[0]
    assert sum("tasks on 2 workers" in text for text in said) == 3
