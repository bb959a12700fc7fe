"""Two hundred runs that are stopped at random: what is committed is whole, nobody stays behind, every run can go on.

Simulated time: light stages (tests/flows/light_stages) write to the store for some tenths of a second each;
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

from benchmarks.measure import REPOSITORY, Measurement, Metrics, read_json

LIGHT_STAGES = REPOSITORY / "tests" / "flows" / "light_stages"
PYTHONPATH = f"{LIGHT_STAGES}{os.pathsep}{REPOSITORY / 'src'}"
N_RUNS, N_FOLDERS, SOAK_SEED = 200, 8, 0
STAGE_DURATION_S = 0.15  # of a stage
PARTS_PER_STAGE = 4  # that a light stage writes (tests/flows/light_stages/light_stages.py)
MAX_RUN_S = 5.0  # until a run is stopped, mostly less than it takes; some end before
MAX_EXIT_S = 60.0  # within which a run that is stopped has ended, and all that it had started
RAY_SHARE, SECOND_DRIVER_SHARE, CHANGED_VALUE_SHARE = 0.33, 0.1, 0.8  # shares of the runs
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
EXIT_BROKEN, REFUSED = 1, 2
VALUE_KEYS = {  # the setting of each light stage that it writes to the store
    "ingest": "max_frames",
    "pose": "min_points",
    "partition": "max_photos",
    "priors": "stereo_edge_px",
    "train": "steps",
    "fuse": "part_faces",
}


def measure_soak(out: Path) -> tuple[Measurement, Metrics]:
    """How many runs ended how, and what was found wrong after any of them."""
    began, rng, ended, faults = time.monotonic(), random.Random(SOAK_SEED), Counter[str](), list[str]()
    photos = out / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    with ray_cluster() as (address, actors):
        for number in range(N_RUNS):
            run = out / f"run{rng.randrange(N_FOLDERS)}"
            driver = _start(photos, run, rng, address)
            time.sleep(rng.uniform(0.3, MAX_RUN_S))
            if rng.random() < SECOND_DRIVER_SHARE and driver.poll() is None:
                ended["second drivers"] += 1
                ended["second drivers refused"] += _start(photos, run, rng, address).wait() == REFUSED
            sent = rng.choice(SIGNALS)
            if driver.poll() is None:
                driver.send_signal(sent)
                ended[sent.name] += 1
            else:
                ended["done before"] += 1
            faults += [f"run {number}, {sent.name}: {what}" for what in _check_ended(driver, run)]
        faults += [f"{n} actors stay" for n in [wait_until_zero(actors)] if n]
        faults += resume_all(out)
        faults += [f"{n} actors stay at the end" for n in [wait_until_zero(actors)] if n]
    faults += [f"{n} processes stay" for n in [wait_until_zero(lambda: _processes(out))] if n]
    seconds = round(time.monotonic() - began, 1)
    return Measurement("python -m benchmarks soak", int(bool(faults)), seconds, 0), {
        "ended": dict(ended),
        "wrong": faults,
    }


def random_change(rng: random.Random) -> str:
    """A setting that redoes some stage."""
    stage = rng.choice(list(VALUE_KEYS))
    return f"{stage}.{VALUE_KEYS[stage]}={rng.randrange(100, 200)}"


def _start(photos: Path, run: Path, rng: random.Random, address: str) -> subprocess.Popen[bytes]:
    extra_options = ["--executor", "ray", "--address", address] if rng.random() < RAY_SHARE else []
    if rng.random() < CHANGED_VALUE_SHARE:
        extra_options += ["--set", random_change(rng)]
    return _quoin("reconstruct", photos, "--out", run, "--quiet", *extra_options)


def _quoin(*words: str | Path, pace_s: float = STAGE_DURATION_S) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "FAKE_PACE": str(pace_s)}
    command = [sys.executable, "-m", "quoin.flows.cli.app", *map(str, words), "--device", "cpu", "--engine", "direct"]
    working_folder = LIGHT_STAGES  # in the checkout its own stages would come first
    return subprocess.Popen(
        command, cwd=working_folder, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _check_ended(driver: subprocess.Popen[bytes], run: Path) -> Iterator[str]:
    """What is wrong with a run that was told to end."""
    try:
        driver.wait(MAX_EXIT_S)
    except subprocess.TimeoutExpired:
        driver.kill()
        yield "the driver goes on"
    if driver.returncode == EXIT_BROKEN:
        yield f"quoin broke, see {run / 'logs'}"
    if n := wait_until_zero(lambda: _processes(run)):
        yield f"{n} processes stay"
    yield from find_incomplete(run)


def resume_all(out: Path) -> Iterator[str]:
    """What is wrong when all runs in a folder are gone on with to their end."""
    for run in sorted(out.glob("run*")):
        yield from (f"{run.name} before resume: {what}" for what in find_incomplete(run))
        if status := _quoin("resume", run, "--quiet", pace_s=0.01).wait():
            yield f"{run.name}: resume ends with {status}"
        yield from (f"{run.name}: {what}" for what in find_incomplete(run))


def find_incomplete(run: Path) -> Iterator[str]:
    """Committed stages that have not left all of what they say."""
    from quoin.pipeline.storage import arrays
    from quoin.pipeline.storage.run import Run

    if not (run / "run.json").exists():
        return
    scene, manifests = Run.open(run).scene, read_json(run / "run.json")["manifests"]
    for name in set(VALUE_KEYS) & manifests.keys():
        result = manifests[name]["result"]
        written = {f"train/{block['block']}": block["steps"] for block in result["blocks"]} if name == "train" else {}
        for place, value in (written or {name: result["value"]}).items():
            for part in range(PARTS_PER_STAGE):
                at = f"paced/{place}/{part}"
                if at not in scene or not np.array_equal(arrays.read_array(scene, at), np.full(4, value)):
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


def wait_until_zero(count: Callable[[], int]) -> int:
    """The count, once it is 0 or MAX_EXIT_S have passed."""
    deadline = time.monotonic() + MAX_EXIT_S
    while (found := count()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@contextmanager
def ray_cluster() -> Iterator[tuple[str, Callable[[], int]]]:
    """A Ray cluster of this machine: its address, and what counts its living actors."""
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": PYTHONPATH,
        "FAKE_PACE": str(STAGE_DURATION_S),
    }
    import ray
    from ray._private.state import actors
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 8, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    ray_cluster = Cluster(initialize_head=True, head_node_args=node)
    ray.init(ray_cluster.address, log_to_driver=False, logging_level="ERROR")

    def living() -> int:
        found: dict[str, dict[str, Any]] = actors()
        return sum(actor["State"] != "DEAD" for actor in found.values())

    try:
        yield ray_cluster.address, living
    finally:
        ray.shutdown()
        ray_cluster.shutdown()
