"""Two hundred runs that are stopped at random: what is committed is whole, nobody stays behind, every run can go on.

Simulated time: the stages are light ones (tests/flows/fakes) that write to the store for some tenths of a second each;
the commands, locks, stores, commits, workers and signals around them are the real ones. A third of the runs works on
Ray actors of one cluster, and now and then two drivers are after the same run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, Measured, Numbers, read

FAKES = ROOT / "tests" / "flows" / "fakes"
PYTHONPATH = f"{FAKES}{os.pathsep}{ROOT / 'src'}"
RUNS, FOLDERS, SEED = 200, 8, 0
PACE_S = 0.15  # of a stage
PARTS = 4  # that a light stage writes (tests/flows/fakes/stages/common.py)
LONGEST_S = 5.0  # until a run is stopped, mostly less than it takes; some end before
GONE_S = 60.0  # within which a run that is stopped has ended, and all that it had started
ON_RAY, RIVALS, ANOTHER_VALUE = 0.33, 0.1, 0.8  # shares of the runs
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
BROKE, REFUSED = 1, 2
STAGES = ("ingest", "pose", "partition", "priors", "train", "fuse")


def case(out: Path) -> tuple[Measured, Numbers]:
    """How many runs ended how, and what was found wrong after any of them."""
    began, chance, ended, wrong = time.monotonic(), random.Random(SEED), Counter[str](), list[str]()
    photos = out / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    with cluster() as (address, actors):
        for number in range(RUNS):
            run = out / f"run{chance.randrange(FOLDERS)}"
            driver = _start(photos, run, chance, address)
            time.sleep(chance.uniform(0.3, LONGEST_S))
            if chance.random() < RIVALS and driver.poll() is None:
                ended["second drivers"] += 1
                ended["second drivers refused"] += _start(photos, run, chance, address).wait() == REFUSED
            sent = chance.choice(SIGNALS)
            if driver.poll() is None:
                driver.send_signal(sent)
                ended[sent.name] += 1
            else:
                ended["done before"] += 1
            wrong += [f"run {number}, {sent.name}: {what}" for what in _ended(driver, run)]
        wrong += [f"{n} actors stay" for n in [left(actors)] if n]
        wrong += finished(out)
        wrong += [f"{n} actors stay at the end" for n in [left(actors)] if n]
    wrong += [f"{n} processes stay" for n in [left(lambda: _processes(out))] if n]
    seconds = round(time.monotonic() - began, 1)
    return Measured("python -m benchmarks soak", int(bool(wrong)), seconds, 0), {"ended": dict(ended), "wrong": wrong}


def _start(photos: Path, run: Path, chance: random.Random, address: str) -> subprocess.Popen[bytes]:
    more = ["--executor", "ray", "--address", address] if chance.random() < ON_RAY else []
    if chance.random() < ANOTHER_VALUE:
        more += ["--set", f"{chance.choice(STAGES)}.value={chance.randrange(100)}"]
    return _quoin("reconstruct", photos, "--out", run, "--quiet", *more)


def _quoin(*words: str | Path, pace_s: float = PACE_S) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "FAKE_PACE": str(pace_s)}
    command = [sys.executable, "-m", "quoin.flows.cli.app", *map(str, words), "--device", "cpu", "--engine", "direct"]
    there = FAKES  # in the checkout its own stages would come first
    return subprocess.Popen(command, cwd=there, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _ended(driver: subprocess.Popen[bytes], run: Path) -> Iterator[str]:
    """What is wrong with a run that was told to end."""
    try:
        driver.wait(GONE_S)
    except subprocess.TimeoutExpired:
        driver.kill()
        yield "the driver goes on"
    if driver.returncode == BROKE:
        yield f"quoin broke, see {run / 'logs'}"
    if n := left(lambda: _processes(run)):
        yield f"{n} processes stay"
    yield from half(run)


def finished(out: Path) -> Iterator[str]:
    """What is wrong when all runs in a folder are gone on with to their end."""
    for run in sorted(out.glob("run*")):
        yield from (f"{run.name} before resume: {what}" for what in half(run))
        if status := _quoin("resume", run, "--quiet", pace_s=0.01).wait():
            yield f"{run.name}: resume ends with {status}"
        yield from (f"{run.name}: {what}" for what in half(run))


def half(run: Path) -> Iterator[str]:
    """Committed stages that have not left all of what they say."""
    from quoin.pipeline.storage import arrays
    from quoin.pipeline.storage.run import Run

    if not (run / "run.json").exists():
        return
    scene, manifests = Run.open(run).scene, read(run / "run.json")["manifests"]
    for name in set(STAGES) & manifests.keys():
        result = manifests[name]["result"]
        written = {f"train/{block['block']}": block["value"] for block in result["blocks"]} if name == "train" else {}
        for place, value in (written or {name: result["value"]}).items():
            for part in range(PARTS):
                at = f"paced/{place}/{part}"
                if at not in scene or not np.array_equal(arrays.read(scene, at), np.full(4, value)):
                    yield f"{name} is committed, but {at} is not what it says"


def _processes(folder: Path) -> int:
    """How many processes were started with a path in ``folder``."""
    found = 0
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if int(entry.name) != os.getpid() and f"{folder}" in words and "quoin.flows.cli.app" in words:
                found += 1
    return found


def left(count: Callable[[], int]) -> int:
    """The count, once it is 0 or GONE_S have passed."""
    deadline = time.monotonic() + GONE_S
    while (found := count()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@contextmanager
def cluster() -> Iterator[tuple[str, Callable[[], int]]]:
    """A Ray cluster of this machine: its address, and what counts its living actors."""
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": PYTHONPATH,
        "FAKE_PACE": str(PACE_S),
    }
    import ray
    from ray._private.state import actors
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 8, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")

    def living() -> int:
        found: dict[str, dict[str, Any]] = actors()
        return sum(actor["State"] != "DEAD" for actor in found.values())

    try:
        yield cluster.address, living
    finally:
        ray.shutdown()
        cluster.shutdown()
