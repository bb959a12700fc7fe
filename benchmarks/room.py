"""A generated room with bare walls: F at 2 and 5 cm (ManhattanSDF's protocol is 5 cm) with and without the planes.

Poses are given, so that the surface alone is compared; "own poses" is the whole job from the photos. Where a variant
changes the priors, it looks for depth once more.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measurement, Metrics, combine_measurements, read_json, run_quoin

ROOM_DISTANCES_M = (0.02, 0.05)
NO_LABELS = ["train.losses.semantic=0", "train.losses.manhattan=0"]
ROOM_VARIANTS: dict[str, list[str]] = {
    "planes, their normals, labels": [],
    "planes, their normals": NO_LABELS,
    "planes": [*NO_LABELS, "train.losses.normals=0"],
    "no planes": ["priors.planes=false"],
}


def measure_room(out: Path) -> tuple[Measurement, Metrics]:
    """Scores of every variant with the true poses, and of the default with the photos' own."""
    photos, truth = rivals.generate_demo_data(out / "room", {"scene": "room"})
    posed = out / "posed"
    options: list[str | Path] = ["--preset", "demo"]
    options_with_poses = [*options, "--poses", truth / "transforms.json"]
    measurements = [run_quoin("plan", photos, "--out", posed, *options_with_poses)]
    rivals.run_priors(posed)
    numbers: Metrics = {}
    for number, (name, changes) in enumerate(ROOM_VARIANTS.items()):
        run = rivals.copy_run(posed, out / f"variant{number}")
        measurements.append(
            run_quoin("reconstruct", photos, "--out", run, *options_with_poses, *rivals.set_options(*changes))
        )
        measurements.append(evaluate_room(run, truth))
        numbers[name] = {"changes": changes, **room_scores(run), **rivals.training_metrics(run)}
    measurements.append(run_quoin("reconstruct", photos, "--out", out / "own", *options))
    measurements.append(evaluate_room(out / "own", truth))
    numbers["own poses"] = {**room_scores(out / "own"), **rivals.training_metrics(out / "own")}
    return combine_measurements("python -m benchmarks room", measurements), numbers


def evaluate_room(run: Path, truth: Path) -> Measurement:
    """``run_quoin evaluate`` at ROOM_DISTANCES_M."""
    distances = [word for distance in ROOM_DISTANCES_M for word in ("--distance", str(distance))]
    return run_quoin("evaluate", run, "--truth", truth / "mesh.ply", "--cameras", truth / "transforms.json", *distances)


def room_scores(run: Path) -> Metrics:
    """Precision, recall and F by distance in metres, and what of floor, ceiling, walls and the rest is there."""
    surface = read_json(run / "evaluation.json").get("surface") or {}
    whole = {
        f"{score['distance_m']:g} m": {name: score[name] for name in ("precision", "recall", "f_score")}
        for score in surface.get("scores", [])
    }
    return {**whole, "parts": read_json(run / "evaluation.json").get("labels", [])}
