"""Training all blocks: order, what is kept, what is redone, what happens when one fails. Training itself is faked."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from quoin.pipeline.core.config import StageConfig, StageResult, validate_config
from quoin.pipeline.core.errors import OutOfMemory, PartialResult, QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import MAX_MEMORY_LEVEL, Attempt
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import Block, Partition, write_partition
from quoin.pipeline.storage.lock import SupersededError, check_fence
from quoin.pipeline.storage.run import Run
from quoin.stages.train.config import BlockResult, TrainConfig
from quoin.stages.train.stage import TRAIN


@pytest.fixture
def run(tmp_path):
    """A run with three blocks to train; the middle one costs most."""
    (tmp_path / "photos").mkdir()
    run = Run.create(tmp_path / "run", photos=tmp_path / "photos", settings={}, seed=0)
    blocks = [
        Block(f"b{i}", BrickBox((i, 0, 0), (i + 1, 1, 1)), 1, np.arange(2), np.ones(2), cost=cost, memory_bytes=10)
        for i, cost in enumerate([1.0, 3.0, 2.0])
    ]
    write_partition(run, Partition(Lattice((0.0, 0.0, 0.0), 0.1), blocks, np.zeros(3), np.ones(3)))
    for stage in ("partition", "priors"):
        run.commit(stage, run.key(stage, StageConfig(), (), 1), StageResult(), 0.0)
    return run


@pytest.fixture
def trained(monkeypatch):
    """Ids of the blocks trained so far; those in ``broken`` raise until attempts are ``fits_at`` times smaller."""

    class Trained(list):
        broken: dict[str, BaseException] = {}
        fits_at = 99
        attempts: list[Attempt] = []

    calls = Trained()

    def train_block(run, config, report, block_id, device, attempt):
        calls.append(block_id)
        calls.attempts.append(attempt)
        error = calls.broken.get(block_id)
        if error is not None and attempt.memory_level < calls.fits_at:
            raise error
        return BlockResult(
            block=block_id,
            steps=config.steps,
            seconds=1.0,
            heldout_psnr_db=None,
            rays_per_s=1.0,
            n_bricks=1,
            peak_memory_bytes=1,
            device=device,
            memory_level=attempt.memory_level,
            memory_reason=attempt.memory_reason,
        )

    fake = ModuleType("quoin.stages.train.block_training")
    fake.train_block = train_block
    monkeypatch.setitem(sys.modules, "quoin.stages.train.block_training", fake)
    calls.broken, calls.attempts = {}, []
    return calls


CONFIG = validate_config(TrainConfig, {"steps": 7})


def test_the_longest_block_first_and_each_committed(run, trained):
    result = TRAIN(run, CONFIG, Reporter())
    assert trained == ["b1", "b2", "b0"]
    assert [block.block for block in result.blocks] == ["b0", "b1", "b2"], "in the partition's order"
    assert {b.device for b in result.blocks} == {"cpu"}
    assert {"train", "train/b0", "train/b1", "train/b2"} <= set(Run.open(run.path).record.manifests)


def test_nothing_is_trained_twice(run, trained):
    first = TRAIN(run, CONFIG, Reporter())
    assert TRAIN(Run.open(run.path), CONFIG, Reporter()) == first
    assert len(trained) == 3


def test_other_settings_train_all_again(run, trained):
    TRAIN(run, CONFIG, Reporter())
    TRAIN(run, validate_config(TrainConfig, {"steps": 8}), Reporter())
    assert len(trained) == 6


def test_a_failed_block_is_missing_the_others_are_kept_and_called_again_trains_only_it(run, trained):
    trained.broken = {"b1": QuoinError("No SfM point lies in this block"), "b0": RuntimeError("out of luck")}
    result = TRAIN(run, CONFIG, Reporter())
    assert [block.block for block in result.blocks] == ["b2"]
    assert result.failed_blocks == {"b1": "No SfM point lies in this block.", "b0": "RuntimeError: out of luck"}
    assert trained == ["b1", "b2", "b0"]
    error = run.path / "work" / "blocks" / "b0" / "error.txt"
    assert "out of luck" in error.read_text()
    with pytest.raises(PartialResult, match="2 of 3 blocks could not be trained, the mesh has a hole"):
        raise TRAIN.incomplete(run)
    run.commit("fuse", "key", StageResult(), 0.0, ("train",))

    trained.broken = {}
    again = Run.open(run.path)
    assert TRAIN(again, CONFIG, Reporter()).failed_blocks == {}
    assert trained[3:] == ["b1", "b0"]
    assert again.manifest("fuse") is None, "made of what was there, it is made anew"
    assert not error.exists()
    assert TRAIN.incomplete(again) is None


def test_without_any_block_there_is_nothing_to_go_on_with(run, trained):
    trained.broken = dict.fromkeys(("b0", "b1", "b2"), QuoinError("Too dark"))
    with pytest.raises(PartialResult, match="3 of 3 blocks"):
        TRAIN(run, CONFIG, Reporter())
    assert run.manifest("train") is None


def test_what_lacks_memory_is_tried_again_with_less_and_the_result_says_so(run, trained):
    events = []
    trained.broken, trained.fits_at = {"b2": OutOfMemory("Memory does not suffice for 64 rays")}, 2
    result = TRAIN(run, CONFIG, Reporter(events.append))
    assert trained == ["b1", "b2", "b2", "b2", "b0"]
    assert [(block.memory_level, block.memory_reason) for block in result.blocks] == [
        (0, ""),
        (0, ""),
        (2, "Memory does not suffice for 64 rays."),
    ]
    told = [e["message"] for e in events if e["name"] == "train/b2" and "less" in e.get("message", "")]
    assert len(told) == 2

    trained.broken, trained.fits_at = {"b2": MemoryError()}, 99
    assert TRAIN(run, validate_config(TrainConfig, {"steps": 8}), Reporter()).failed_blocks == {"b2": "MemoryError: "}
    assert len(trained) == 5 + 2 + 1 + MAX_MEMORY_LEVEL


def test_every_attempt_claims_its_block(run, trained):
    trained.broken, trained.fits_at = {"b1": OutOfMemory("Memory does not suffice")}, 1
    TRAIN(run, CONFIG, Reporter())
    first, second, *others = trained.attempts
    folder = run.path / "work" / "blocks" / "b1"
    check_fence(folder, second.id)
    with pytest.raises(SupersededError, match="later attempt"):
        check_fence(folder, first.id)
    assert len({a.id for a in (first, second, *others)}) == 4


def test_an_interrupt_keeps_the_blocks_that_are_done(run, trained):
    trained.broken = {"b2": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        TRAIN(run, CONFIG, Reporter())
    trained.broken = {}
    TRAIN(Run.open(run.path), CONFIG, Reporter())
    assert trained == ["b1", "b2", "b2", "b0"]


def test_the_table_of_blocks_is_told_as_they_end(run, trained):
    events = []
    TRAIN(run, CONFIG, Reporter(events.append))
    states = [{row["block"]: row["state"] for row in event["rows"]} for event in events if event["kind"] == "table"]
    assert states == [{"b0": "to do", "b1": "to do", "b2": "to do"}, {"b1": "done"}, {"b2": "done"}, {"b0": "done"}]
