"""Damage of a run: every committed file ends in a sentence that names the stage to redo, and redoing it mends it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import (
    SdfBricks,
    read_block,
    read_block_model,
    read_brick_index,
    read_held_out,
    read_partition,
    read_sdf_brick,
    read_total_cost,
    write_block_model,
    write_partition,
    write_sdf_bricks,
)
from quoin.pipeline.scene.manhattan import ManhattanFrame, read_manhattan_frame, write_manhattan_frame
from quoin.pipeline.scene.mesh_formats import committed_mesh, decode_glb
from quoin.pipeline.scene.photo_table import read_photo_table, read_pose_rows, write_photo_table
from quoin.pipeline.scene.world import World, read_world, write_world
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.layout import DamagedError, damaged_file_error
from quoin.pipeline.storage.run import Run
from quoin.stages.report.collect import collect_curves
from tests.fixtures.stage_of import stage_of
from tests.stages.report.scene import commit, make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with something of every kind of file in it."""
    run = make_run(tmp_path_factory.mktemp("whole"), size=(24, 18), subdivisions=2, n_points=50)
    walls = ManhattanFrame(np.array([0.0, 0, 1]), np.eye(3)[:2], np.ones(2), np.ones(2, int), 0.9)
    write_manhattan_frame(run, walls)
    write_world(run, World("m", np.array([0.0, 0, 1]), 0.9))
    priors.write_depth(run, 0, np.ones((4, 5)), 1)
    write_sdf_bricks(run, "b000", SdfBricks(np.zeros((1, 3), int), np.ones((1, 5, 5, 5))))
    write_block_model(run, "b000", {"table": np.ones(3)}, {"config": {}})
    for block in ("b000", "b001"):
        commit(run, f"train/{block}", 1.0, steps=1)
    return run


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    shutil.copytree(whole.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


Reader = Callable[[Run], object]
# File, what reads it, and the stage that makes it again.
DAMAGED: list[tuple[str, Reader, str]] = [
    ("tables/photos.parquet", read_photo_table, "ingest"),
    ("tables/poses.parquet", read_pose_rows, "pose"),
    ("tables/train_b000.parquet", lambda run: collect_curves(run, ["b000"]), "train"),
    ("scene.zarr/poses/zarr.json", posed_images.read_posed, "pose"),
    ("scene.zarr/poses/sizes/zarr.json", posed_images.read_posed, "pose"),
    ("scene.zarr/poses/sizes/c.0.0", posed_images.read_posed, "pose"),
    ("scene.zarr/photos/000000/rgb0/zarr.json", lambda run: posed_images.read_photo(run, 0), "pose"),
    ("scene.zarr/photos/000000/mask/c.0.0", lambda run: posed_images.read_mask(run, 0), "pose"),
    ("scene.zarr/frame/zarr.json", read_world, "pose"),
    ("scene.zarr/frame/zarr.json", read_manhattan_frame, "pose"),
    ("scene.zarr/blocks/zarr.json", read_partition, "partition"),
    ("scene.zarr/blocks/zarr.json", lambda run: read_block(run, "b000"), "partition"),
    ("scene.zarr/blocks/zarr.json", read_held_out, "partition"),
    ("scene.zarr/blocks/zarr.json", read_total_cost, "partition"),
    ("scene.zarr/blocks/b000/zarr.json", read_partition, "partition"),
    ("scene.zarr/blocks/b000/photo_index/zarr.json", read_partition, "partition"),
    ("scene.zarr/blocks/b000/brick_index/zarr.json", lambda run: read_brick_index(run, "b000"), "train"),
    ("scene.zarr/blocks/b000/sdf/zarr.json", lambda run: read_sdf_brick(run, "b000", 0), "train"),
    ("scene.zarr/blocks/b000/sdf/c.0.0.0.0", lambda run: read_sdf_brick(run, "b000", 0), "train"),
    ("scene.zarr/blocks/b000/model/zarr.json", lambda run: read_block_model(run, "b000"), "train"),
    ("scene.zarr/blocks/b000/model/table/zarr.json", lambda run: read_block_model(run, "b000"), "train"),
    ("scene.zarr/priors/000000/depth/zarr.json", lambda run: priors.read_depth(run, 0), "priors"),
    ("scene.zarr/priors/000000/depth/c.0.0", lambda run: priors.read_depth(run, 0), "priors"),
    ("mesh.ply", lambda run: committed_mesh(run, "mesh.ply"), "fuse"),
    ("mesh.glb", lambda run: committed_mesh(run, "mesh.glb"), "fuse"),
    ("mesh.glb", lambda run: decode_glb(run.file("mesh.glb").read_bytes()), "fuse"),
]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(
    ("name", "read", "stage"), DAMAGED, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(DAMAGED)]
)
def test_a_file_that_is_cut_names_the_stage_that_makes_it_again(
    run: Run, name: str, read: Reader, stage: str, keep: float
) -> None:
    read(run)
    path = run.path / name
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DamagedError, match=f"--force {stage}") as caught:
        read(Run.open(run.path))
    assert pickle.loads(pickle.dumps(caught.value)).stage == stage


@pytest.mark.parametrize("name", ["tables/photos.parquet", "tables/poses.parquet", "mesh.ply", "mesh.glb"])
def test_a_file_that_is_missing_names_the_stage_that_makes_it_again(run: Run, name: str) -> None:
    (run.path / name).unlink()
    read, stage = next((read, stage) for other, read, stage in DAMAGED if other == name)
    with pytest.raises(DamagedError, match=f"--force {stage}"):
        read(run)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"zarr_format": 3}', '{"zarr_format": 3, "node_type": "group"}'])
@pytest.mark.parametrize("node", ["poses", "poses/sizes"])
def test_metadata_without_their_keys_are_damage_and_not_absence(run: Run, node: str, text: str) -> None:
    (run.path / "scene.zarr" / node / "zarr.json").write_text(text)
    with pytest.raises(DamagedError, match="--force pose"):
        posed_images.read_posed(Run.open(run.path))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zarr_format": 3, "node_type": "array"}', "\x00" * 300])
def test_the_root_of_the_store_is_written_again_as_it_holds_nothing(run: Run, text: str) -> None:
    (run.path / "scene.zarr/zarr.json").write_text(text)
    assert len(posed_images.read_posed(Run.open(run.path))) == 10


@pytest.mark.parametrize("node", ["poses", "frame", "blocks", "blocks/b000", "blocks/b000/sdf", "blocks/b000/model"])
def test_what_cannot_be_read_can_be_written_again(run: Run, node: str) -> None:
    """Else the advice to redo the stage would lead nowhere."""
    posed, partition = posed_images.read_posed(run), read_partition(run)
    (run.path / "scene.zarr" / node / "zarr.json").write_bytes(b"\0")
    run = Run.open(run.path)
    posed_images.write_posed(run, posed)
    arrays.delete_node(run.scene, "frame")
    write_world(run, World())
    write_partition(run, partition)
    write_sdf_bricks(run, "b000", SdfBricks(np.zeros((1, 3), int), np.ones((1, 5, 5, 5))))
    write_block_model(run, "b000", {"table": np.ones(3)}, {})
    run = Run.open(run.path)
    assert len(posed_images.read_posed(run)) == len(posed)
    assert [block.id for block in read_partition(run).blocks] == [block.id for block in partition.blocks]
    assert read_sdf_brick(run, "b000", 0).min() == 1
    assert read_block_model(run, "b000")[0]["table"].shape == (3,)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", 5])
def test_names_of_photos_that_lead_out_of_their_folder_are_damage(run: Run, name: object) -> None:
    attrs = run.scene["poses"].attrs
    attrs["names"] = [name, *list(attrs["names"])[1:]]
    with pytest.raises(DamagedError, match="leads out of its folder"):
        posed_images.read_posed(Run.open(run.path))


def test_names_of_committed_files_that_lead_out_of_the_run_are_damage(run: Run) -> None:
    record = json.loads((run.path / "run.json").read_text())
    for where, value in (
        (("manifests", "fuse", "files"), {"../../x": {"sha256": "", "n_bytes": 0}}),
        (("manifests", "fuse", "key"), "../../x"),
        (("id",), "../../x"),
    ):
        changed = json.loads(json.dumps(record))
        parent = changed
        for key in where[:-1]:
            parent = parent[key]
        parent[where[-1]] = value
        (run.path / "run.json").write_text(json.dumps(changed))
        with pytest.raises(QuoinError, match=r"run.json is damaged"):
            Run.open(run.path)


def test_paths_of_photos_that_lead_out_of_the_run_are_damage(run: Run) -> None:
    [first, *others] = read_photo_table(run)
    write_photo_table(run, [replace(first, path=str(run.path / "../../secret.jpg")), *others])
    with pytest.raises(DamagedError, match=r"leads out of its folder.*--force ingest"):
        read_photo_table(run)


def test_names_of_blocks_that_lead_out_of_their_folder_are_damage(run: Run) -> None:
    run.scene["blocks"].attrs["order"] = ["../../x"]
    with pytest.raises(DamagedError, match="no name of a block"):
        read_partition(Run.open(run.path))


class Done(StageResult):
    n: int


@stage_of("fuse", result=Done)
def fuse(run: Run, config: StageConfig, report: Reporter) -> Done:
    """Reads a file of an earlier attempt, where there is one."""
    path = run.path / "work/fuse/part.npz"
    if path.exists():
        return Done(n=int(arrays.read_npz(path, "work/fuse/part.npz", ("n",))["n"]))
    path.parent.mkdir(parents=True)
    np.savez(path, n=7)
    return Done(n=7)


def test_a_result_that_is_not_what_the_stage_writes_names_the_stage(run: Run) -> None:
    commit(run, "fuse", 1.0, m=3)
    run.record.manifests["fuse"].key = fuse.key(run, StageConfig())
    with pytest.raises(DamagedError, match="--force fuse"):
        fuse(run, StageConfig(), Reporter())


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_scratch_that_is_damaged_is_thrown_away_and_made_again_once(run: Run, keep: float) -> None:
    run.invalidate("fuse")
    path = run.path / "work/fuse/part.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, n=np.arange(3000))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    events: list[Event] = []
    assert fuse(run, StageConfig(), Reporter(events.append)).n == 7
    assert [event["level"] for event in events if "thrown away" in event.get("message", "")] == ["warning"]


def test_scratch_that_is_damaged_twice_ends_in_a_sentence(run: Run) -> None:
    calls = []

    @stage_of("fuse", result=Done)
    def always(run: Run, config: StageConfig, report: Reporter) -> Done:
        calls.append(1)
        raise damaged_file_error("work/fuse/part.npz", "no")

    run.invalidate("fuse")
    with pytest.raises(QuoinError, match="--force fuse"):
        always(run, StageConfig(), Reporter())
    assert len(calls) == 2


def test_a_run_json_that_is_cut_says_so(run: Run) -> None:
    data = (run.path / "run.json").read_bytes()
    for content in (b"", data[: len(data) // 2], b"[]", json.dumps({"format": 2}).encode(), b"\xff"):
        (run.path / "run.json").write_bytes(content)
        with pytest.raises(QuoinError, match=r"run.json is damaged"):
            Run.open(run.path)
