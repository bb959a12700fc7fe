"""Strangers' photos: the demo with a crowd before it, other exposures, tints and tone curves, against the calm one.

Both are taken by the same cameras. The truth of the wild set is what two cameras see past the crowd; the calm set is
scored against its own. Then the wild set once more without each part that is there for such photos, and with true masks
of the people: as a perfect network would tell them.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measurement, Metrics, combine_measurements, run_quoin

CALM_CHANGES = {"crowd": 0.0, "exposure": (1.0, 1.0), "tint": 0.0, "gamma": 1.0}
FULL_NAME, MASKED_NAME = "everything", "people masked"
ABLATED_PARTS: dict[str, list[str]] = {
    "no sky": ["priors.sky=false", "train.losses.sky=0"],
    "depths believed without company": ["priors.min_support=0"],
    "no appearance": ["train.color.exposure=false", "train.color.appearance=0"],
    "no votes on what is kept": ["fuse.min_confirmed=0"],
}


def measure_wild(out: Path) -> tuple[Measurement, Metrics]:
    """F of the calm set and of the wild one, also masked, with own poses; then at its poses without each part."""
    from quoin.tools.synthetic.config import WILD_SETTINGS

    done: list[Measurement] = []
    numbers: Metrics = {}

    def measure(name: str, photos: Path, truth: Path, run: Path, changes: list[str], *more: str | Path) -> None:
        done.append(
            run_quoin("reconstruct", photos, "--out", run, "--preset", "demo", *rivals.set_options(*changes), *more)
        )
        done.append(run_quoin("evaluate", run, "--truth", truth / "mesh.ply", "--cameras", truth / "transforms.json"))
        numbers[name] = {"changes": changes, **rivals.surface_scores(run), **rivals.training_metrics(run)}

    measure("calm", *rivals.generate_demo_data(out / "calm", {**WILD_SETTINGS, **CALM_CHANGES}), out / "calm run", [])
    photos, truth = rivals.generate_demo_data(out / "wild", WILD_SETTINGS)
    measure(FULL_NAME, photos, truth, out / FULL_NAME, [])
    measure(MASKED_NAME, photos, truth, out / MASKED_NAME, [], "--masks", truth / "masks")
    for name, changes in ABLATED_PARTS.items():
        measure(name, photos, truth, rivals.copy_run(out / FULL_NAME, out / name), changes)
    return combine_measurements("python -m benchmarks wild", done), numbers
