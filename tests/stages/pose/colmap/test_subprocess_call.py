"""The COLMAP process dies, fails, or is interrupted: always one sentence, never the end of us."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.subprocess_call import SubprocessDiedError, run_in_subprocess
from tests.stages.pose.room import cameras_around, render, save

JOB = {"seed": 1, "threads": 1}


def children() -> set[int]:
    """Processes of ours that run."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def features(folder: Path, count: int) -> dict:
    (folder / "images").mkdir()
    for index, pose in enumerate(cameras_around(count)):
        save(folder / "images" / f"{index:06d}.jpg", render(pose, factor=1))
    return {
        **JOB,
        "database": str(folder / "database.db"),
        "images": str(folder / "images"),
        "cameras": [["SIMPLE_RADIAL", 400, 300, [400.0, 200.0, 150.0, 0.0], False]],
        "photos": [{"id": i, "file": f"{i:06d}.jpg", "camera": 0} for i in range(count)],
        "masks": "",
        "max_edge_px": 400,
        "max_features": 1000,
    }


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the process to kill in /proc")


@needs_proc
def test_a_killed_process_is_told_with_step_signal_and_last_line(tmp_path: Path) -> None:
    before = children()

    def kill(line: str) -> None:
        for pid in children() - before:
            os.kill(pid, signal.SIGABRT)

    with pytest.raises(SubprocessDiedError, match=r"'extract_features'.*SIGABRT") as caught:
        run_in_subprocess("extract_features", features(tmp_path, 2), tmp_path, kill)
    log = (tmp_path / "extract_features.log").read_text()
    assert "last line was: " in caught.value.what
    assert caught.value.what.split("last line was: ")[1] in log
    assert caught.value.where == str(tmp_path / "extract_features.log")


@needs_proc
def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    before, job = children(), features(tmp_path, 2)

    def interrupt(line: str) -> None:
        assert children() - before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_subprocess("extract_features", job, tmp_path, interrupt)
    assert not children() - before


def test_a_failure_of_the_library_is_one_sentence(tmp_path: Path) -> None:
    job = features(tmp_path, 2)
    job["images"] = str(tmp_path / "nowhere")
    with pytest.raises(QuoinError, match="COLMAP failed in step 'extract_features'") as caught:
        run_in_subprocess("extract_features", job, tmp_path)
    assert not isinstance(caught.value, SubprocessDiedError)


@needs_proc
def test_the_process_dies_with_its_parent(tmp_path: Path) -> None:
    """Our end of its stdin closes when we are gone; here we close it ourselves."""
    from quoin.stages.pose.colmap import subprocess_call

    before, job, seen = children(), features(tmp_path, 6), []
    opened = subprocess_call.subprocess.Popen

    def remember(*args, **kwargs):
        seen.append(opened(*args, **kwargs))
        return seen[-1]

    subprocess_call.subprocess.Popen = remember
    try:
        threading.Timer(0.0, lambda: (time.sleep(1.0), seen[0].stdin.close())).start()
        with pytest.raises(SubprocessDiedError, match="exit code 1"):
            run_in_subprocess("extract_features", {**job, "max_edge_px": 16000}, tmp_path, lambda line: time.sleep(0.3))
    finally:
        subprocess_call.subprocess.Popen = opened
    assert not children() - before


def test_features_are_kept_when_the_step_is_done_again(tmp_path: Path) -> None:
    job, lines = features(tmp_path, 2), []
    first = run_in_subprocess("extract_features", job, tmp_path)
    again = run_in_subprocess("extract_features", job, tmp_path, lines.append)
    assert first == again
    assert min(first["n_features"]) > 200
    assert not any("Features:" in line for line in lines)
