"""What showing a run in Prefect costs: a small one, one where all is done already, and the demo, with and without it.

The run that has nothing to do is the fixed part: imports, the flow, seven tasks, their artifacts.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measured, Numbers, quoin, stages, together
from benchmarks.server import serving

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
    with serving(out / "home"):
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


def demo(out: Path) -> tuple[Measured, Numbers]:
    """The demo by both engines: seconds in all, and of them within the stages."""
    done: list[Measured] = []
    numbers: Numbers = {}
    with serving(out / "home"):
        for engine in ("direct", "prefect"):
            done.append(quoin("demo", "--out", out / engine, "--engine", engine, "--quiet"))
            manifests = stages(out / engine / "run")["stages"]
            within = sum(stage["seconds"] for name, stage in manifests.items() if "/" not in name)
            numbers[engine] = {"seconds": done[-1].seconds, "seconds_within_stages": round(within, 2)}
    direct, prefect = (numbers[engine]["seconds"] for engine in ("direct", "prefect"))
    numbers |= {"more_s": round(prefect - direct, 2), "more_share": round(prefect / direct - 1, 4)}
    return together("python -m benchmarks prefect-demo", done), numbers
