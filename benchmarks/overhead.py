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
    """The demo without Prefect, with it, and without it again: seconds in all, and of them within the stages."""
    done: list[Measured] = []
    numbers: Numbers = {}
    with serving(out / "home"):
        for name in ("direct", "prefect", "direct again"):
            measured, numbers[name] = one_demo(out / name, name.partition(" ")[0])
            done.append(measured)
    return together("python -m benchmarks prefect-demo", done), {**numbers, **more(numbers)}


def one_demo(out: Path, engine: str) -> tuple[Measured, Numbers]:
    """The demo by an engine."""
    measured = quoin("demo", "--out", out, "--engine", engine, "--quiet")
    manifests = stages(out / "run")["stages"]
    within = sum(stage["seconds"] for name, stage in manifests.items() if "/" not in name)
    return measured, {"seconds": measured.seconds, "seconds_within_stages": round(within, 2)}


def more(numbers: Numbers) -> Numbers:
    """What it takes longer with Prefect than in the quicker of the other two."""
    direct = min(numbers["direct"]["seconds"], numbers["direct again"]["seconds"])
    took = numbers["prefect"]["seconds"]
    return {"more_s": round(took - direct, 2), "more_share": round(took / direct - 1, 4)}
