"""Strangers' photos: the demo with a crowd before it, other exposures, tints and tone curves, against the calm one.

Both are taken by the same cameras. The truth of the wild set is what two cameras see past the crowd; the calm set is
scored against its own. Then the wild set once more without each part that is there for such photos.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measured, Numbers, quoin, together

CALM = {"crowd": 0.0, "exposure": (1.0, 1.0), "tint": 0.0, "gamma": 1.0}
WITHOUT: dict[str, list[str]] = {
    "everything": [],
    "no sky": ["priors.sky=false", "train.losses.sky=0"],
    "no appearance": ["train.colour.gain=false", "train.colour.code=0"],
}


def case(out: Path) -> tuple[Measured, Numbers]:
    """F of the calm set and of the wild one, with own poses; then of the wild one without each part."""
    from stages.demo.config import WILD

    done: list[Measured] = []
    numbers: Numbers = {}
    for name, changes in (("calm", CALM), ("wild", {})):
        photos, truth = rivals.generated(out / name, {**WILD, **changes})
        for part, settings in (WITHOUT if name == "wild" else {"everything": []}).items():
            run = out / f"{name} {part}".replace(" ", "_")
            done.append(quoin("reconstruct", photos, "--out", run, "--preset", "demo", *rivals.settings(*settings)))
            done.append(quoin("evaluate", run, "--truth", truth / "mesh.ply", "--cameras", truth / "transforms.json"))
            numbers[f"{name}: {part}"] = {"changes": settings, **rivals.surface_scores(run), **rivals.training(run)}
    return together("python -m benchmarks wild", done), numbers
