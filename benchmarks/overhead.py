"""What showing a run in Prefect costs: a small one, one where all is done already, and the demo, with and without it.

The run that has nothing to do is the fixed part: imports, the flow, seven tasks, their artifacts.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measurement, Metrics, combine_measurements, read_stage_results, run_quoin
from benchmarks.server import serve_prefect

DEMO_CHANGES = {"n_photos": 24, "width": 480, "height": 360}
OVERHEAD_SETTINGS = rivals.set_options(
    "train.steps=100", "train.preview_minutes=0.1", "priors.stereo_edge_px=0", "pose.max_features=3000"
)
N_REPEATS = 3


def measure_overhead(out: Path) -> tuple[Measurement, Metrics]:
    """Seconds and memory of both, by engine."""
    photos, _ = rivals.generate_demo_data(out, DEMO_CHANGES)
    done: list[Measurement] = []
    numbers: Metrics = {}
    with serve_prefect(out / "home"):
        for engine in ("warm", "direct", "prefect"):  # the first compiles, and is not counted
            engine_options = ["--engine", "direct" if engine == "warm" else engine, "--quiet"]
            run = out / engine
            first = run_quoin(
                "reconstruct", photos, "--out", run, "--preset", "demo", *OVERHEAD_SETTINGS, *engine_options
            )
            if engine == "warm":
                continue
            repeats = [run_quoin("resume", run, *engine_options) for _ in range(N_REPEATS)]
            done += [first, *repeats]
            numbers[engine] = {
                "seconds": first.seconds,
                "seconds_of_nothing_to_do_least_of_3": min(m.seconds for m in repeats),
                "peak_memory_bytes": first.peak_memory_bytes,
            }
    return combine_measurements("python -m benchmarks prefect", done), numbers


def demo_overhead(out: Path) -> tuple[Measurement, Metrics]:
    """The demo without Prefect, with it, and without it again: seconds in all, and of them within the stages."""
    done: list[Measurement] = []
    numbers: Metrics = {}
    with serve_prefect(out / "home"):
        for name in ("direct", "prefect", "direct again"):
            measured, numbers[name] = measure_demo(out / name, name.partition(" ")[0])
            done.append(measured)
    return combine_measurements("python -m benchmarks prefect-demo", done), {**numbers, **overhead_metrics(numbers)}


def measure_demo(out: Path, engine: str) -> tuple[Measurement, Metrics]:
    """The demo by an engine."""
    measured = run_quoin("demo", "--out", out, "--engine", engine, "--quiet")
    manifests = read_stage_results(out / "run")["stages"]
    within = sum(stage["seconds"] for name, stage in manifests.items() if "/" not in name)
    return measured, {"seconds": measured.seconds, "seconds_within_stages": round(within, 2)}


def overhead_metrics(numbers: Metrics) -> Metrics:
    """What it takes longer with Prefect than in the quicker of the other two."""
    direct = min(numbers["direct"]["seconds"], numbers["direct again"]["seconds"])
    took = numbers["prefect"]["seconds"]
    return {"more_s": round(took - direct, 2), "more_share": round(took / direct - 1, 4)}
