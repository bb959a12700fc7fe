"""Training all blocks: order, what is kept, what is redone, what happens when one fails. Training itself is faked."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from cluster.blocks import train_blocks
from cluster.executor import InlineExecutor
from pipeline.config import StageConfig, StageResult, build
from pipeline.errors import PartialResult, QuoinError
from pipeline.lattice import BrickBox, Lattice
from pipeline.progress import Reporter
from pipeline.run import Run
from pipeline.scene import Block, Partition, write_partition
from stages.train.config import BlockResult, TrainConfig


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
    """Ids of the blocks trained so far; ids in ``trained.broken`` raise."""

    class Trained(list):
        broken: dict[str, Exception] = {}

    calls = Trained()

    def train_block(run, config, report, block_id, device):
        calls.append(block_id)
        if block_id in calls.broken:
            raise calls.broken[block_id]
        return BlockResult(
            block=block_id,
            steps=config.steps,
            seconds=1.0,
            heldout_psnr_db=None,
            rays_per_s=1.0,
            n_bricks=1,
            peak_memory_bytes=1,
            device=device,
        )

    fake = ModuleType("stages.train.run")
    fake.train_block = train_block
    monkeypatch.setitem(sys.modules, "stages.train.run", fake)
    calls.broken = {}
    return calls


CONFIG = build(TrainConfig, {"steps": 7})
HERE = InlineExecutor("cpu")


def test_the_longest_block_first_and_each_committed(run, trained):
    result = train_blocks(run, CONFIG, HERE, Reporter())
    assert trained == ["b1", "b2", "b0"]
    assert [block.block for block in result.blocks] == ["b0", "b1", "b2"], "in the partition's order"
    assert {b.device for b in result.blocks} == {"cpu"}
    assert {"train", "train/b0", "train/b1", "train/b2"} <= set(Run.open(run.path).record.manifests)


def test_nothing_is_trained_twice(run, trained):
    first = train_blocks(run, CONFIG, HERE, Reporter())
    assert train_blocks(Run.open(run.path), CONFIG, HERE, Reporter()) == first
    assert len(trained) == 3


def test_other_settings_train_all_again(run, trained):
    train_blocks(run, CONFIG, HERE, Reporter())
    train_blocks(run, build(TrainConfig, {"steps": 8}), HERE, Reporter())
    assert len(trained) == 6


def test_a_failed_block_is_named_the_others_are_kept_and_resume_trains_only_it(run, trained):
    trained.broken = {"b1": QuoinError("No SfM point lies in this block"), "b0": RuntimeError("out of luck")}
    with pytest.raises(PartialResult, match="2 of 3 blocks") as caught:
        train_blocks(run, CONFIG, HERE, Reporter())
    assert "b1: No SfM point lies in this block" in str(caught.value)
    assert "b0: RuntimeError: out of luck" in str(caught.value)
    assert trained == ["b1", "b2", "b0"]
    assert "out of luck" in (run.path / "work" / "blocks" / "b0" / "error.txt").read_text()
    trained.broken = {}
    train_blocks(Run.open(run.path), CONFIG, HERE, Reporter())
    assert trained[3:] == ["b1", "b0"]


def test_an_interrupt_keeps_the_blocks_that_are_done(run, trained):
    trained.broken = {"b2": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        train_blocks(run, CONFIG, HERE, Reporter())
    trained.broken = {}
    train_blocks(Run.open(run.path), CONFIG, HERE, Reporter())
    assert trained == ["b1", "b2", "b2", "b0"]


def test_the_table_of_blocks_is_told_as_they_end(run, trained):
    events = []
    train_blocks(run, CONFIG, HERE, Reporter(events.append))
    states = [[row["state"] for row in event["rows"]] for event in events if event["kind"] == "table"]
    assert states == [
        ["to do", "to do", "to do"],
        ["to do", "done", "to do"],
        ["to do", "done", "done"],
        ["done", "done", "done"],
    ]
