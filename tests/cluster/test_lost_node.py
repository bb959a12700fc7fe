"""A machine of the cluster goes away in the middle of a block's training: what that costs, and what comes out."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quoin.cluster.ray_workers import RayWorkers
from quoin.cluster.resources import ResourceRequest, plan_resources
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.storage.run import Run
from quoin.stages.train.stage import TRAIN
from tests.fixtures import ball_scene
from tests.fixtures.ball_scene import TINY, surface

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

LONGER = TINY.model_copy(update={"steps": 100, "rays": 128, "checkpoint_minutes": 0.004})


def test_training_goes_on_elsewhere_from_its_last_checkpoint_to_the_same_surface(
    nodes: Any, room: Any, node: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    made = ball_scene.make_run(tmp_path, n_photos=6, width=80, height=60, n_points=100)
    made.commit("priors", "priors-key", StageResult(), 0.0)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    doomed = node(num_cpus=2, num_gpus=0)
    events: list[Event] = []
    fallen: list[float] = []

    def hear(event: Event) -> None:
        events.append(event)
        checkpoint = tmp_path / "run" / "work" / "blocks" / "b000" / "checkpoint.safetensors"
        if event["kind"] == "advance" and event["name"] == "train/b000" and checkpoint.exists() and not fallen:
            fallen.append(event["done"])
            for process in doomed.all_processes["raylet"]:  # and not the worker, which notices, saves and ends
                os.kill(process.process.pid, signal.SIGKILL)
            ray.kill(room)

    def single_threaded(
        *given: Any,
    ) -> ResourceRequest:  # two that wait for each other are slow where others work beside them
        return dataclasses.replace(plan_resources(*given), n_threads=1)

    monkeypatch.setattr("quoin.cluster.ray_workers.plan_resources", single_threaded)
    workers = RayWorkers("cpu", nodes.address, workers=1)
    [result] = TRAIN(made, LONGER, Reporter(hear), workers).blocks
    assert fallen and result.steps == LONGER.steps
    told = [e["message"] for e in events if e["kind"] == "log" and e["name"] == "train/b000"]
    lost = ("its machine does not answer", "its worker got SIGTERM")  # by whichever comes home first
    assert any(words in message for message in told for words in lost), told
    (went_on,) = [int(m.split("step ")[1].split()[0]) for m in told if m.startswith("resuming at step")]
    assert 0 < went_on < LONGER.steps, "from a checkpoint, not from the beginning"

    whole = Run.open(tmp_path / "whole")
    TRAIN(whole, LONGER, Reporter())
    mended, straight = surface(made), surface(whole)
    assert len(mended.keys() ^ straight.keys()) == 0
    for brick, voxels in straight.items():
        np.testing.assert_allclose(mended[brick], voxels, atol=0.05)  # of a voxel
