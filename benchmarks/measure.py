"""Run a command and measure it: wall seconds, exit status, and the peak memory of all its processes together."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quoin.flows.cli.errors import EXIT_TERMINATED

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
STOP_POLL_SECONDS = 0.5
SAMPLE_SECONDS = 0.25
MIN_PAUSE_RATIO = (
    50  # at least so many times as long as a sample takes: of large processes it takes 25 ms, a tenth of a core
)

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One command, run once."""

    command: str
    exit_status: int
    seconds: float
    peak_memory_bytes: int  # largest sum of proportional set sizes seen, four samples a second or fewer


class BenchmarkSkipped(Exception):
    """This machine cannot measure the case; the message says why."""


def run_quoin(*arguments: str | Path, until: Callable[[], bool] | None = None) -> Measurement:
    """Run ``run_quoin arguments`` of this checkout; its output goes where ours goes.

    With ``until`` it is asked to stop as soon as that holds, which then counts as its end.
    """
    words = [str(argument) for argument in arguments]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "quoin.flows.cli.app", *words], cwd=REPOSITORY, stdin=subprocess.DEVNULL
    )
    peak = _PeakMemorySampler(process.pid)
    peak.start()
    status = process.wait() if until is None else _stopped(process, until)
    seconds = time.monotonic() - began
    peak.stop()
    return Measurement(" ".join(["quoin", *words]), status, round(seconds, 2), peak.bytes)


def _stopped(process: subprocess.Popen[bytes], until: Callable[[], bool]) -> int:
    while process.poll() is None:
        if until():
            process.terminate()
            return 0 if process.wait() == EXIT_TERMINATED else process.returncode
        time.sleep(STOP_POLL_SECONDS)
    return process.returncode


def combine_measurements(command: str, parts: Sequence[Measurement]) -> Measurement:
    """Several commands, one after the other, as one: all their time, the worst exit status, the highest peak."""
    return Measurement(
        command,
        max(part.exit_status for part in parts),
        round(sum(part.seconds for part in parts), 2),
        max(part.peak_memory_bytes for part in parts),
    )


def read_stage_results(run: Path) -> Metrics:
    """What every committed stage returned, and how long it took; ``parts``: of that time, by a stage that tells."""
    manifests = read_json(run / "run.json").get("manifests", {})
    found = {}
    for name, manifest in manifests.items():
        result = dict(manifest["result"])
        parts = {"parts": result.pop("seconds")} if "seconds" in result else {}
        found[name] = {"seconds": manifest["seconds"], **parts, **result}
    return {"stages": found}


def read_json(path: Path) -> Metrics:
    """A JSON file; nothing where there is none."""
    return json.loads(path.read_bytes()) if path.exists() else {}


def describe_environment() -> dict[str, Any]:
    """Machine, versions and commit: what a number means nothing without."""
    return {
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain") else ""),  # +: changed
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB",
        "gpu": _gpu(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "triton", "pycolmap", "numpy")},
    }


class _PeakMemorySampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.bytes, self._pid, self._stopped = 0, pid, threading.Event()

    def run(self) -> None:
        pause = SAMPLE_SECONDS
        while not self._stopped.wait(pause):
            began = time.monotonic()
            self.bytes = max(self.bytes, sum(map(_memory_bytes, _process_tree(self._pid))))
            pause = max(SAMPLE_SECONDS, MIN_PAUSE_RATIO * (time.monotonic() - began))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _process_tree(pid: int) -> list[int]:
    """The process and all its descendants; a child belongs to the thread that started it."""
    children: list[str] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += (thread / "children").read_text().split()
    except OSError:  # it has just ended
        return []
    return [pid, *(descendant for child in children for descendant in _process_tree(int(child)))]


def _memory_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _git(*words: str) -> str:
    try:
        completed = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return completed.stdout.strip()


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
