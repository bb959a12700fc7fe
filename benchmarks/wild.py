"""Strangers' photos: the demo with a crowd before it, other exposures, tints and tone curves, against the calm one.

Both are taken by the same cameras. The truth of the wild set is what two cameras see past the crowd; the calm set is
scored against its own. Then the wild set once more without each part that is there for such photos, and with true masks
of the people: as a perfect network would tell them.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measured, Numbers, quoin, together

CALM = {"crowd": 0.0, "exposure": (1.0, 1.0), "tint": 0.0, "gamma": 1.0}
EVERYTHING, MASKED = "everything", "people masked"
WITHOUT: dict[str, list[str]] = {
    "no sky": ["priors.sky=false", "train.losses.sky=0"],
    "depths believed without company": ["priors.min_support=0"],
    "no appearance": ["train.colour.gain=false", "train.colour.code=0"],
    "no votes on what is kept": ["fuse.min_confirmed=0"],
}


def case(out: Path) -> tuple[Measured, Numbers]:
    """F of the calm set and of the wild one, also masked, with own poses; then at its poses without each part."""
    from quoin.tools.synthetic.config import WILD

    done: list[Measured] = []
    numbers: Numbers = {}

    def measure(name: str, photos: Path, truth: Path, run: Path, changes: list[str], *more: str | Path) -> None:
        done.append(quoin("reconstruct", photos, "--out", run, "--preset", "demo", *rivals.settings(*changes), *more))
        done.append(quoin("evaluate", run, "--truth", truth / "mesh.ply", "--cameras", truth / "transforms.json"))
        numbers[name] = {"changes": changes, **rivals.surface_scores(run), **rivals.training(run)}

    measure("calm", *rivals.generated(out / "calm", {**WILD, **CALM}), out / "calm run", [])
    photos, truth = rivals.generated(out / "wild", WILD)
    measure(EVERYTHING, photos, truth, out / EVERYTHING, [])
    measure(MASKED, photos, truth, out / MASKED, [], "--masks", truth / "masks")
    for name, changes in WITHOUT.items():
        measure(name, photos, truth, rivals.copied(out / EVERYTHING, out / name), changes)
    return together("python -m benchmarks wild", done), numbers
