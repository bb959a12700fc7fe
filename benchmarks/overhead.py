"""What showing a run in Prefect costs: a small reconstruction, and one where all is done already, with and without.

The run that has nothing to do is the fixed part: imports, the flow, seven tasks, their artifacts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import ROOT, Measured, Numbers, quoin, together

COLLECTION = {"n_photos": 24, "width": 480, "height": 360}
SMALL = rivals.settings(
    "train.steps=100", "train.preview_minutes=0.1", "priors.stereo_edge_px=0", "pose.max_features=3000"
)
TIMES = 3


def case(out: Path) -> tuple[Measured, Numbers]:
    """Seconds and memory of both, by engine."""
    photos, _ = rivals.generated(out, COLLECTION)
    done: list[Measured] = []
    numbers: Numbers = {}
    with _server(out / "home"):
        for engine in ("warm", "direct", "prefect"):  # the first compiles, and is not counted
            how = ["--engine", "direct" if engine == "warm" else engine, "--quiet"]
            run = out / engine
            whole = quoin("reconstruct", photos, "--out", run, "--preset", "demo", *SMALL, *how)
            if engine == "warm":
                continue
            again = [quoin("resume", run, *how) for _ in range(TIMES)]
            done += [whole, *again]
            numbers[engine] = {
                "seconds": whole.seconds,
                "seconds_of_nothing_to_do_least_of_3": min(m.seconds for m in again),
                "peak_memory_bytes": whole.peak_memory_bytes,
            }
    return together("python -m benchmarks prefect", done), numbers


@contextmanager
def _server(home: Path) -> Iterator[None]:
    """``quoin ui`` of this checkout, and PREFECT_API_URL naming it."""
    from flows.ui import answers

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    env = os.environ | {"QUOIN_HOME": str(home)}
    server = subprocess.Popen([sys.executable, "-m", "flows.cli", "ui", "--port", str(port)], cwd=ROOT, env=env)
    try:
        while not answers(url):
            if server.poll() is not None:
                raise RuntimeError("quoin ui has ended")
            time.sleep(0.5)
        os.environ["PREFECT_API_URL"] = url
        yield
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        server.terminate()
        server.wait()
