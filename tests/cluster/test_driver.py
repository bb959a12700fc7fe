"""Drivers, each in a process of its own: killed, told to stop, and left without the head of their cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DRIVER = """
import os, signal, sys, time
from pathlib import Path

from quoin.cluster import connection
from quoin.cluster.ray_workers import RayWorkers
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Task

folder, how = Path(sys.argv[1]), sys.argv[2]


def work(context):
    from quoin.pipeline.core import cancellation

    (folder / "pid").write_text(str(os.getpid()))
    while not cancellation.requested():
        time.sleep(0.1)
    (folder / "saved").touch()
    cancellation.check()


def greedy(context):
    (folder / "pid").write_text(str(os.getpid()))
    if not context.attempt.memory_level:
        time.sleep(1.0)
        much = bytearray(b"x") * int(3.0e9)
        time.sleep(60.0)
    return context.attempt.memory_reason


def told(event):
    if event["kind"] == "log":
        print(event["message"], flush=True)


address = None
if how == "head":
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **small})
    address = cluster.address
    (folder / "head").write_text(str(cluster.head_node.all_processes["gcs_server"][0].process.pid))
    connection.HEAD_TIMEOUT_SECONDS = connection.CONNECT_TIMEOUT_SECONDS = 1.0
if how == "memory":  # Ray kills workers where 1.5 GB more are used than are now
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    os.environ["RAY_memory_usage_threshold"] = f"{(total - free + 1.5e9) / total:.4f}"
    os.environ["RAY_memory_monitor_refresh_ms"] = "100"
    tasks = [Task("greedy", can_reduce_memory=True)]
    print([outcome.result for outcome in RayWorkers("cpu", workers=1, retries=9).map(greedy, tasks, Reporter(told))])
    sys.exit()
if how == "stop":
    def stop(number, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
try:
    for outcome in RayWorkers("cpu", address, workers=1).map(work, [Task("work")], Reporter(told)):
        print(outcome)
except KeyboardInterrupt:
    print("stopped")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """``start(how)``: a driver whose task runs."""
    drivers = []

    def begin(how: str) -> subprocess.Popen[str]:
        env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore"}
        words = [sys.executable, "-c", DRIVER, str(tmp_path), how]
        driver = subprocess.Popen(words, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True)
        drivers.append(driver)
        wait_until((tmp_path / "pid").exists, 240, driver)
        return driver

    yield begin
    for driver in drivers:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()


def wait_until(true: Callable[[], bool], seconds: float, driver: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        assert driver is None or driver.poll() is None, driver.communicate()
        time.sleep(0.1)


Start = Callable[[str], subprocess.Popen[str]]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_with_a_driver_that_is_killed(start: Start, tmp_path: Path) -> None:
    driver = start("kill")
    worker = int((tmp_path / "pid").read_text())
    driver.kill()
    wait_until(lambda: not alive(worker), 60)  # whether it could save first is left to chance


def test_a_driver_that_is_told_to_stop_lets_its_workers_save(start: Start, tmp_path: Path) -> None:
    driver = start("stop")
    worker = int((tmp_path / "pid").read_text())
    driver.terminate()
    out, _ = driver.communicate(timeout=120)
    assert "stopped" in out
    assert (tmp_path / "saved").exists()
    wait_until(lambda: not alive(worker), 30)


def test_a_head_that_is_lost_ends_the_driver_with_a_sentence(start: Start, tmp_path: Path) -> None:
    driver = start("head")
    os.kill(int((tmp_path / "head").read_text()), signal.SIGKILL)
    out, _ = driver.communicate(timeout=120)
    assert "QuoinError: The head of the Ray cluster is gone" in out
    assert "quoin resume" in out
    assert (tmp_path / "saved").exists(), "the work was saved all the same"
    assert driver.returncode == 0, "and nothing keeps the process"


def test_what_rays_memory_monitor_kills_is_tried_again_with_less(start: Start) -> None:
    out, _ = start("memory").communicate(timeout=400)
    assert "out of memory, trying again with less: Ray's memory monitor killed its worker" in out
    assert out.splitlines()[-1] == """["Ray's memory monitor killed its worker"]"""
