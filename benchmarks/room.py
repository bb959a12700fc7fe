"""A generated room with bare walls: F at 2 and 5 cm (ManhattanSDF's protocol is 5 cm) with and without the planes.

Poses are given, so that the surface alone is compared; "own poses" is the whole job from the photos. Where a variant
changes the priors, it looks for depth once more.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measured, Numbers, quoin, read, together

DISTANCES_M = (0.02, 0.05)
NO_LABELS = ["train.losses.kind=0", "train.losses.layout=0"]
VARIANTS: dict[str, list[str]] = {
    "planes, their normals, labels": [],
    "planes, their normals": NO_LABELS,
    "planes": [*NO_LABELS, "train.losses.normals=0"],
    "no planes": ["priors.planes=false"],
}


def case(out: Path) -> tuple[Measured, Numbers]:
    """Scores of every variant with the true poses, and of the default with the photos' own."""
    photos, truth = rivals.generated(out / "room", {"scene": "room"})
    posed = out / "posed"
    options: list[str | Path] = ["--preset", "demo"]
    given = [*options, "--poses", truth / "transforms.json"]
    done = [quoin("plan", photos, "--out", posed, *given)]
    rivals.find_stereo(posed)
    numbers: Numbers = {}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        run = rivals.copied(posed, out / f"variant{number}")
        done.append(quoin("reconstruct", photos, "--out", run, *given, *rivals.settings(*changes)))
        done.append(scored(run, truth))
        numbers[name] = {"changes": changes, **scores(run), **rivals.training(run)}
    done.append(quoin("reconstruct", photos, "--out", out / "own", *options))
    done.append(scored(out / "own", truth))
    numbers["own poses"] = {**scores(out / "own"), **rivals.training(out / "own")}
    return together("python -m benchmarks room", done), numbers


def scored(run: Path, truth: Path) -> Measured:
    """``quoin evaluate`` at DISTANCES_M."""
    distances = [word for distance in DISTANCES_M for word in ("--distance", str(distance))]
    return quoin("evaluate", run, "--truth", truth / "mesh.ply", "--cameras", truth / "transforms.json", *distances)


def scores(run: Path) -> Numbers:
    """Precision, recall and F by distance in metres, and what of floor, ceiling, walls and the rest is there."""
    surface = read(run / "evaluation.json").get("surface") or {}
    whole = {
        f"{score['distance_m']:g} m": {name: score[name] for name in ("precision", "recall", "f")}
        for score in surface.get("scores", [])
    }
    return {**whole, "parts": read(run / "evaluation.json").get("labels", [])}
