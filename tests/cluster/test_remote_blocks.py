"""A block of a run in object storage, trained by a process that shares nothing with the driver but the URL."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from quoin.pipeline.core.config import StageResult, validate_config
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Attempt, InlineWorkers, Outcome, Step, Task, TaskContext
from quoin.pipeline.scene.blocks import read_brick_index, read_partition, read_sdf_brick
from quoin.pipeline.storage.lock import SupersededError
from quoin.pipeline.storage.object_store import Bucket
from quoin.pipeline.storage.run import Run
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.stage import TRAIN, block_task, train_block_attempt
from tests.fixtures import ball_scene

ROOT = Path(__file__).parents[2]
SMALL = validate_config(
    TrainConfig,
    {
        "steps": 12,
        "rays": 64,
        "points": 64,
        "patches": 16,
        "sampler": {"kind": "guided", "samples": 8},
        "sdf_cache": {"resolution": 32},
        "encoding": {"kind": "hash", "levels": 4, "max_resolution": 48, "log2_table": 10},
        "measure_every": 6,
        "preview_minutes": 0.001,
    },
)
WORK = """
import pickle, sys
from quoin.pipeline.core.workers import TaskContext
step, args, attempt = pickle.load(sys.stdin.buffer)
pickle.dump(step(TaskContext(attempt=attempt), *args), open(sys.argv[1], "wb"))
"""


class Elsewhere(InlineWorkers):
    """Does every task in a process with a cache of its own, as on another machine."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home

    def map(self, step: Step, tasks: Sequence[Task], report: Reporter) -> Iterator[Outcome]:
        for task in tasks:
            self.home.mkdir()
            answer = self.home / "answer"
            env = os.environ | {"QUOIN_HOME": str(self.home), "PYTHONPATH": str(ROOT / "src")}
            told = pickle.dumps((step, task.args, task.start_attempt(Attempt())))
            subprocess.run([sys.executable, "-c", WORK, answer], input=told, env=env, check=True)
            yield Outcome(task, pickle.loads(answer.read_bytes()))


def make(folder: Path, place: str | None = None) -> Run:
    run = ball_scene.make_run(folder, n_photos=5, width=64, height=48, n_points=120, place=place)
    run.commit("priors", "priors-key", StageResult(), 0.0)
    return run


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_worker_elsewhere_trains_from_the_url_alone(bucket: str, tmp_path: Path):
    url = f"{bucket}/run"
    run = make(tmp_path, url)
    result = TRAIN(run, SMALL, Reporter(), Elsewhere(tmp_path / "elsewhere"))
    assert result.blocks[0].steps == 12
    assert not list(run.path.glob("tables/train_*")), "its files did not come by way of this machine"

    seen = Run.open(url)
    assert {"tables/train_b000.parquet", "work/blocks/b000/preview/000012.jpg"} <= set(seen.require("train/b000").files)
    assert max(row["step"] for row in pq.read_table(seen.file("tables/train_b000.parquet")).to_pylist()) == 12
    assert [path.name for path in seen.files("work/blocks/b000/preview")][-1] == "000012.jpg"

    # in a folder, in this process, the result is the same
    here = make(tmp_path)
    TRAIN(here, SMALL, Reporter())
    assert (read_brick_index(seen, "b000") == read_brick_index(here, "b000")).all()
    for row in range(len(read_brick_index(here, "b000"))):
        one, other = read_sdf_brick(seen, "b000", row), read_sdf_brick(here, "b000", row)
        assert np.abs(one - other).max() < 0.05

    # and this machine goes on from the checkpoint that the other left
    assert "work/blocks/b000/checkpoint.safetensors" in {name for name, _, _ in Bucket(url).list_objects()}
    events: list = []
    seen.invalidate("train")
    TRAIN(seen, SMALL, Reporter(events.append))
    assert any("resuming at step 12" in event.get("message", "") for event in events)


def test_a_worker_that_was_given_up_writes_nothing_more(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"{bucket}/run"
    run = make(tmp_path, url)
    [block] = read_partition(run).blocks
    task = block_task(run, SMALL, block)
    first = task.start_attempt(Attempt())
    task.start_attempt(Attempt())
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    there = pickle.loads(pickle.dumps(task.args))
    with pytest.raises(SupersededError):
        train_block_attempt(TaskContext(attempt=first), *there)
    assert Bucket(url).head("work/blocks/b000/checkpoint.safetensors") is None
