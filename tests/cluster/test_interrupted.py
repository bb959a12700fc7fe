"""Training of a block that is stopped, superseded, short of memory, or loses its storage; on a small scene."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import OutOfMemory, PartialResult
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.core.workers import Attempt
from quoin.pipeline.scene.blocks import Block, block_folder, read_partition
from quoin.pipeline.storage import disk
from quoin.pipeline.storage.lock import SupersededError, fence
from quoin.pipeline.storage.run import Run
from quoin.stages.train import block_training, trainer
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.stage import TRAIN
from tests.fixtures import ball_scene
from tests.fixtures.ball_scene import TINY, surface

BLOCK = "b000"


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    monkeypatch.setattr(disk, "INITIAL_BACKOFF_SECONDS", 0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    run = ball_scene.make_run(folder, n_photos=6, width=80, height=60, n_points=100)
    run.commit("priors", "priors-key", StageResult(), 0.0)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A run of the test's own, ready to be trained."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Run.open(tmp_path / "run")


OFTEN = TINY.model_copy(update={"checkpoint_minutes": 1e-6})


def train(
    run: Run,
    at_step: int = -1,
    hint: Callable[[], object] = lambda: None,
    config: TrainConfig = TINY,
    attempt: Attempt = block_training.SINGLE_ATTEMPT,
) -> list[Event]:
    """Train the block, ``hint`` something once ``at_step`` is reached; the events."""
    events: list[Event] = []
    done: list[object] = []

    def hear(event: Event) -> None:
        events.append(event)
        if at_step >= 0 and event["kind"] == "advance" and event["done"] >= at_step and not done:
            done.append(1)
            done.append(hint())

    block_training.train_block(run, config, Reporter(hear), BLOCK, "cpu", attempt)
    return events


def saved_step(run: Run) -> int:
    with safe_open(str(block_folder(run, BLOCK) / "checkpoint.safetensors"), framework="pt") as file:
        return int(file.get_tensor("step"))


def has_bricks(run: Run) -> bool:
    return "brick_index" in run.scene[f"blocks/{BLOCK}"]


@pytest.mark.slow
def test_sigterm_saves_within_seconds_and_the_end_is_that_of_undisturbed_training(
    run: Run, made: Path, tmp_path: Path
) -> None:
    class Terminated(KeyboardInterrupt):
        pass

    def handler(number: int, frame: object) -> None:
        raise Terminated

    before, told_at = signal.signal(signal.SIGTERM, handler), []

    def terminate() -> None:
        told_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(Terminated):
            train(run, 23, terminate)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - told_at[0] < 10
    assert saved_step(run) in (23, 24), "no step is lost"
    events = train(run)
    assert any("resuming at step 2" in e.get("message", "") for e in events)

    shutil.copytree(made, tmp_path / "whole")
    whole = Run.open(tmp_path / "whole" / "run")
    train(whole)
    mended, straight = surface(run), surface(whole)
    assert mended.keys() == straight.keys()
    for brick, voxels in straight.items():
        np.testing.assert_allclose(mended[brick], voxels, atol=0.02)  # of a voxel


def test_a_smaller_attempt_takes_less_goes_on_where_the_larger_was_and_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []
    build = block_training.build_trainer

    def noted(run: Run, config: TrainConfig, block: Block, *rest: object) -> object:
        levels.append(block.photo_level.max())
        if len(levels) == 1:  # the first attempt, before its first step
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return build(run, config, block, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(block_training, "build_trainer", noted)
    first = read_partition(run).blocks[0].photo_level.max()
    (result,) = TRAIN(run, TINY, Reporter()).blocks
    assert levels == [first, first + 1]
    assert (result.rays, result.memory_level) == (TINY.rays // 2, 1)
    assert "can't allocate memory" in result.memory_reason
    assert result.steps == TINY.steps
    again = dataclasses.replace(Attempt(), memory_level=2, memory_reason="x")
    assert block_training.train_block(run, TINY, Reporter(), BLOCK, "cpu", again).rays == TINY.rays // 4


def test_memory_that_never_suffices_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(block_training, "build_trainer", fail)
    with pytest.raises(OutOfMemory, match="Out of memory in training this block"):
        train(run)
    with pytest.raises(PartialResult, match="Out of memory"):
        TRAIN(run, TINY, Reporter())


def test_an_attempt_that_was_superseded_writes_nothing_more(run: Run) -> None:
    folder = block_folder(run, BLOCK)
    fence(folder, "orphan")
    with pytest.raises(SupersededError):
        train(run, 30, lambda: fence(folder, "successor"), OFTEN, Attempt("orphan"))
    assert saved_step(run) < 35
    assert not has_bricks(run)


def test_a_run_folder_that_is_gone_for_a_while_costs_no_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    away, noticed, is_transient = run.path.with_name("away"), threading.Event(), disk.is_transient

    def notice(error: BaseException | None, folder: Path) -> bool:
        transient = is_transient(error, folder)
        noticed.set()
        return transient

    def come_back() -> None:
        noticed.wait(60.0)
        away.rename(run.path)

    monkeypatch.setattr(disk, "is_transient", notice)

    def vanish() -> None:
        run.path.rename(away)
        threading.Thread(target=come_back).start()

    events = train(run, 60, vanish)  # at the last checkpoint
    told = [e["message"] for e in events if e["kind"] == "log" and "does not respond" in e["message"]]
    assert told
    assert saved_step(run) == TINY.steps
    assert has_bricks(run)
    assert not [e for e in events if "going on" in e.get("message", "")], "in the same attempt"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_the_last_checkpoint_stays_and_training_goes_on_from_it(
    made: Path, small_disk: Path
) -> None:
    shutil.copytree(made, small_disk / "made")
    run = Run.open(small_disk / "made" / "run")
    filler = small_disk / "filler"

    def fill(event: Event) -> None:
        if event["kind"] == "advance" and event["name"] == f"train/{BLOCK}" and event["done"] >= 20:
            with filler.open("ab") as file:
                file.write(bytes(max(0, shutil.disk_usage(small_disk).free - 4096)))

    with pytest.raises(PartialResult, match="The disk is full"):
        TRAIN(run, OFTEN, Reporter(fill))
    assert saved_step(run) > 15  # the one before the last gives way to the next, so there may be room for more
    filler.unlink()
    events: list[Event] = []
    (result,) = TRAIN(Run.open(run.path), OFTEN, Reporter(events.append)).blocks
    assert result.steps == TINY.steps
    assert any("resuming at step" in e.get("message", "") for e in events)
