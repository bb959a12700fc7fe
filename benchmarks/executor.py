"""What handing out work costs: a thousand jobs that only wait, on 32 Ray actors, beside a queue that costs nothing."""

from __future__ import annotations

import heapq
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Measurement, Metrics
from quoin.cluster.connection import ray_environment
from quoin.cluster.ray_workers import RayWorkers
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Task, TaskContext

N_JOBS, N_WORKERS, MEAN_JOB_SECONDS, JOB_TIME_SIGMA = 1000, 32, 4.0, 0.7
MEMORY_SAMPLE_EVERY = 50  # jobs between two looks at the driver's memory


def measure_executor(out: Path) -> tuple[Measurement, Metrics]:
    """32 real actor processes with a pretended GPU each; their jobs sleep, so that two cores suffice for them."""
    del out
    os.environ.update(ray_environment(None))
    import ray

    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=N_WORKERS, num_gpus=N_WORKERS, object_store_memory=200_000_000, **quiet)
    samples = np.random.default_rng(0).lognormal(0.0, JOB_TIME_SIGMA, N_JOBS)
    seconds = np.sort(samples * MEAN_JOB_SECONDS / samples.mean())[::-1]  # the longest first
    tasks = [Task(f"wait/{i}", (s,), cost=s) for i, s in enumerate(seconds.tolist())]
    began, memory, spans = time.time(), [], []
    for outcome in RayWorkers().map(sleep_step(), tasks, Reporter()):
        spans.append(outcome.result)
        if len(spans) % MEMORY_SAMPLE_EVERY == 0:
            memory.append(resident_bytes())
    ended = time.time()
    ray.shutdown()
    first = {pid: min(b for p, b, _ in spans if p == pid) - began for pid, _, _ in spans}
    ideal_s = makespan(seconds.tolist(), sorted(first.values()))
    makespan_s = max(e for _, _, e in spans) - began
    numbers: Metrics = {
        "n_jobs": len(spans),
        "n_workers": len(first),
        "job_seconds": {"mean": MEAN_JOB_SECONDS, "median": float(np.median(seconds)), "longest": float(seconds[0])},
        "workers_ready_s": {"first": min(first.values()), "last": max(first.values())},
        "even_share_s": float(seconds.sum() / N_WORKERS),
        "ideal_s": ideal_s,
        "makespan_s": makespan_s,
        "over_ideal": makespan_s / ideal_s - 1,
        "driver_resident_bytes": {"after_50": memory[0], "after_all": memory[-1]},
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measurement("RayWorkers.map", 0, round(ended - began, 2), peak), numbers


def sleep_step() -> Callable[..., tuple[int, float, float]]:
    """A step that takes so many seconds, pickled by value: it returns its process, and when it began and ended."""

    def work(context: TaskContext, seconds: float) -> tuple[int, float, float]:
        began = time.time()
        time.sleep(seconds)
        return os.getpid(), began, time.time()

    return work


def makespan(seconds: Sequence[float], ready_s: Sequence[float]) -> float:
    """When the last of the jobs ends that workers, there from ``ready_s`` on, take in turn at no cost."""
    free = list(ready_s)
    heapq.heapify(free)
    last = 0.0
    for taken in seconds:
        last = max(last, free[0] + taken)
        heapq.heapreplace(free, free[0] + taken)
    return last


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
