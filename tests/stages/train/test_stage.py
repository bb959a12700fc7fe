"""Training a block of the ball scene: the surface improves, runs go on where they stopped, bad input is told."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.flows.settings import load_settings
from quoin.pipeline.core.config import StageResult, digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import block_folder, read_brick_index, read_partition, read_sdf_brick
from quoin.pipeline.storage.run import Run
from quoin.stages.train import block_training, trainer
from quoin.stages.train.block_training import train_block
from quoin.stages.train.config import LearningRateConfig, SdfCacheConfig, TrainConfig
from quoin.stages.train.stage import TRAIN
from quoin.stages.train.step import MAX_NON_FINITE_STEPS
from tests.fixtures import ball_scene

SMALL = TrainConfig(
    steps=120,
    rays=192,
    points=128,
    patches=48,
    sampler=GuidedSamplerConfig(samples=12),
    sdf_cache=SdfCacheConfig(resolution=48),
    encoding=HashEncodingConfig(levels=6, max_resolution=96, log2_table=12),
    measure_every=60,
)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compiling takes a minute; the graph is the same (test_compiled_step compares them)."""
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)


@pytest.fixture
def run(tmp_path):
    made = ball_scene.make_run(tmp_path)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    return made


def start(run, config=SMALL):
    return ball_scene.start(run, config)


def surface_error(made, frame):
    """Median |sdf| in metres on the true ball where the cameras see it."""
    direction = np.random.default_rng(0).normal(size=(4000, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = ball_scene.BALL_CENTRE + ball_scene.BALL_RADIUS * direction
    points = points[points[:, 2] > 0.4]
    with torch.no_grad():
        sdf = made.model.surface.sdf(torch.tensor(frame.to_local(points), dtype=torch.float32))
    return float(sdf.abs().median()) * frame.radius_m


def test_training_brings_the_surface_to_the_truth_and_the_picture_to_the_photo(tmp_path):
    run = ball_scene.make_run(tmp_path, n_points=60)  # few enough that the seed is far off
    run.commit("priors", "priors-key", StageResult(), 0.0)
    long = SMALL.model_copy(update={"steps": 250, "lr": LearningRateConfig(grid=2e-3, surface=5e-4)})
    made, frame = start(run, long)
    before, dark = surface_error(made, frame), made.held_out_psnr()
    losses = [v["loss"] for v in (made.train_step() for _ in range(long.steps)) if v]
    assert len(made.photos.held_out) > 0
    assert losses[-1] < 0.75 * losses[0]
    assert surface_error(made, frame) < 0.8 * before
    assert made.held_out_psnr() > dark + 2.0


def test_held_out_pixels_are_never_drawn(run):
    made, _ = start(run, SMALL.model_copy(update={"held_out_share": 0.2}))
    drawn = torch.cat([made.photos.draw_pixels(5000, made.generator) for _ in range(20)])
    tiles = {tuple(row) for row in (drawn // torch.tensor([1, 16, 16])).tolist()}
    held = {tuple(row) for row in (made.photos.held_out // torch.tensor([1, 16, 16])).tolist()}
    assert held
    assert not tiles & held


def test_a_restored_trainer_goes_on_with_the_same_curve(run, tmp_path):
    whole, _ = start(run)
    first, _ = start(run)
    for _ in range(20):
        whole.train_step()
        first.train_step()
    block_training.save_checkpoint(tmp_path, first.state_dict(), "key")
    second, _ = start(run)
    second.load_state_dict(block_training.load_checkpoint(tmp_path, "key"))
    assert second.step == 20
    for _ in range(10):
        expected, got = whole.train_step(), second.train_step()
    assert got["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert block_training.load_checkpoint(tmp_path, "other key") is None


def test_a_block_leaves_bricks_metrics_and_a_checkpoint_and_is_not_trained_twice(run):
    result = train_block(run, SMALL, Reporter(), "b000", "cpu")
    assert result.steps == SMALL.steps
    assert result.n_bricks == len(read_brick_index(run, "b000")) > 0
    assert result.heldout_psnr_db > 10
    brick = read_sdf_brick(run, "b000", 0)
    assert brick.min() <= 0 <= brick.max()
    events = []
    again = train_block(run, SMALL, Reporter(events.append), "b000", "cpu")
    assert any("resuming at step 120" in e.get("message", "") for e in events)
    assert again.n_bricks == result.n_bricks


@pytest.mark.slow
def test_an_occupancy_is_learnt_from_lines_of_sight_and_meshed_where_the_scene_is(run):
    """No photo teaches it: the zero level of its bricks lies on ball and floor where points are known."""
    small = ["steps=150", "lr.surface=2e-3", "surface.width=64", "surface.layers=3", "encoding.frequencies=4"]
    values = ["method=occupancy", "sdf_cache.resolution=32", "points=512", *small]
    config = load_settings(overrides=[f"train.{value}" for value in values]).train
    result = train_block(run, config, Reporter(), "b000", "cpu")
    assert result.heldout_psnr_db is None
    assert result.n_bricks > 0
    lattice = read_partition(run).lattice
    crossings = []
    for row, brick in enumerate(read_brick_index(run, "b000")):
        sdf = read_sdf_brick(run, "b000", row).astype(np.float64)
        for axis in range(3):
            a, b = np.moveaxis(sdf, axis, 0)[:-1], np.moveaxis(sdf, axis, 0)[1:]
            at = np.argwhere((a > 0) != (b > 0))
            share = (a / np.where(a == b, 1.0, a - b))[tuple(at.T)]
            index = np.insert(at[:, 1:].astype(float), axis, at[:, 0] + share, axis=1)
            crossings.append(index + brick * lattice.brick_size)
    surface = np.array(lattice.origin_world) + np.concatenate(crossings) * lattice.voxel_size_m
    points = posed_images.read_posed(run).points_world
    reach = cKDTree(surface).query(points)[0]
    assert np.median(reach) < 1.0 * lattice.voxel_size_m
    near = surface[cKDTree(points).query(surface)[0] < 0.1]
    assert np.median(np.abs(ball_scene.sdf_world(near))) < 1.0 * lattice.voxel_size_m


def test_a_budget_ends_the_training_with_its_schedule_done(run):
    config = SMALL.model_copy(update={"steps": 100_000, "budget_minutes": 0.05})
    result = train_block(run, config, Reporter(), "b000", "cpu")
    assert 0 < result.steps < 5000
    state = block_training.load_checkpoint(block_folder(run, "b000"), _key_of(run, config))
    assert float(state["elapsed_s"]) >= 3.0
    assert result.n_bricks > 0


def _key_of(run, config):
    input_keys = [run.require(stage).key for stage in ("partition", "priors")]
    return digest([config.model_dump(), input_keys, "b000", run.seed, TRAIN.version])


def test_a_checkpoint_goes_from_machine_to_machine(bucket, tmp_path, monkeypatch):
    run = Run.create(f"{bucket}/run", photos=tmp_path, settings={}, seed=0)
    folder = block_folder(run, "b0")
    for step in (1.0, 2.0):
        block_training.save_checkpoint(folder, {"step": torch.tensor(step)}, "key")
        block_training.upload_checkpoint(run, folder)
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    other = Run.open(f"{bucket}/run")
    there = block_folder(other, "b0")
    assert there != folder
    block_training.download_checkpoint(other, there)
    assert block_training.load_checkpoint(there, "key")["step"] == 2.0
    (there / block_training.CHECKPOINT_FILE).unlink()
    assert block_training.load_checkpoint(there, "key")["step"] == 1.0


def test_a_checkpoint_of_another_size_is_refused(run, tmp_path):
    made, _ = start(run)
    block_training.save_checkpoint(tmp_path, made.state_dict(), "key")
    other, _ = start(
        run, SMALL.model_copy(update={"encoding": HashEncodingConfig(levels=7, max_resolution=96, log2_table=12)})
    )
    with pytest.raises(QuoinError, match="does not fit"):
        other.load_state_dict(block_training.load_checkpoint(tmp_path, "key"))


def test_a_damaged_checkpoint_is_told_and_none(tmp_path):
    (tmp_path / block_training.CHECKPOINT_FILE).write_bytes(b"not safetensors at all")
    told = []
    assert block_training.load_checkpoint(tmp_path, "key", told.append) is None
    assert "the checkpoint is damaged" in told[0]


STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(True), "c": torch.zeros(0), "d": torch.ones(2).half()}


def test_any_byte_that_is_turned_gives_the_checkpoint_before_or_none(tmp_path):
    block_training.save_checkpoint(tmp_path, {"a": torch.zeros(1)}, "key")
    block_training.save_checkpoint(tmp_path, STATE, "key")
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(whole) == 2
    good = whole[tmp_path / block_training.CHECKPOINT_FILE]
    before = 0
    for place in range(len(good)):
        for path, data in whole.items():
            path.write_bytes(data)
        (tmp_path / block_training.CHECKPOINT_FILE).write_bytes(
            good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :]
        )
        found = block_training.load_checkpoint(tmp_path, "key")
        if found is None:  # the key
            continue
        before += list(found) == ["a"]
        expected = {"a": torch.zeros(1)} if list(found) == ["a"] else STATE
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert before > len(good) // 2


def test_with_both_damaged_it_starts_anew(tmp_path):
    for _ in range(2):
        block_training.save_checkpoint(tmp_path, STATE, "key")
    for path in list(tmp_path.iterdir()):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    told = []
    assert block_training.load_checkpoint(tmp_path, "key", told.append) is None
    assert len(told) == 2
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_stops_with_the_term_named(run):
    made, _ = start(run)
    made.data.supervision.weight.fill_(torch.nan)
    for _ in range(MAX_NON_FINITE_STEPS - 1):
        assert made.train_step() is None
    with pytest.raises(QuoinError, match="points"):
        made.train_step()
    assert all(torch.isfinite(p).all() for p in made.model.parameters())


def test_masks_that_leave_nothing_are_told(run):
    for index in range(12):
        posed_images.write_photo(run, index, [posed_images.read_photo(run, index)], np.zeros((120, 160), np.uint8))
    with pytest.raises(QuoinError, match="masks"):
        start(run)


def test_a_block_without_points_is_told(run):
    posed = posed_images.read_posed(run)
    posed_images.write_posed(run, dataclasses.replace(posed, points_world=posed.points_world + 100.0))
    with pytest.raises(QuoinError, match="No SfM point"):
        start(run)


@pytest.mark.compiled
def test_compiled_step(run, monkeypatch):
    """The compiled step gives the losses of the eager one, and compiles once."""
    monkeypatch.undo()
    import torch._dynamo.utils

    compiled_one, _ = start(run)
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    eager_one, _ = start(run)
    for _ in range(10):
        a, b = compiled_one.train_step(), eager_one.train_step()
    assert a["loss"] == pytest.approx(b["loss"], rel=2e-2)
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for _ in range(5):
        compiled_one.train_step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted
