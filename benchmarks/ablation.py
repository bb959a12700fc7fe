"""What each part of the default method brings: without it, everything else and the number of steps the same.

Steps and not seconds, so that the surfaces can be compared whatever else the machine does; the seconds stand beside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import given, rivals
from benchmarks.measure import DATA, Measurement, Metrics, combine_measurements, run_quoin

FOUNTAIN_DATA = DATA / "strecha_fountain_p11"
HOLD_OUT_EVERY = 8  # of so many photos of the fountain one is held out
N_DEMO_PHOTOS = 40  # of the demo
ABLATION_STEPS = 300  # of the demo's preset
ABLATION_VARIANTS: dict[str, list[str]] = {
    "everything": [],
    "64 + 64 samples by importance": ["train.sampler={kind: importance, coarse: 64, rounds: 4, per_round: 16}"],
    "64 guided samples": ["train.sampler.samples=64"],
    "no points": ["train.losses.sfm_points=0", "train.losses.free_space=0"],
    "no stereo": ["priors.stereo_edge_px=0"],
    "no patches": ["train.losses.photoconsistency=0"],
    "all levels at once": ["train.encoding.initial_levels=10"],
    "no appearance": ["train.color.exposure=false", "train.color.appearance=0"],
}


def ablate_demo(out: Path) -> tuple[Measurement, Metrics]:
    """F on the generated landmark, poses given."""
    photos, truth = rivals.generate_demo_data(out / "demo", {"n_photos": N_DEMO_PHOTOS})
    options: rivals.CliOptions = ["--preset", "demo", "--poses", truth / "transforms.json"]
    return run_variants(out, photos, options, ["--truth", truth / "mesh.ply"], rivals.surface_scores)


def ablate_fountain(out: Path) -> tuple[Measurement, Metrics]:
    """Views held out of the fountain, poses given."""
    poses = given.strecha_transforms(FOUNTAIN_DATA, out / "transforms.json")
    options: rivals.CliOptions = ["--poses", poses, *rivals.set_options(f"partition.hold_out_every={HOLD_OUT_EVERY}")]
    return run_variants(out, FOUNTAIN_DATA / "images", options, ["--views"], rivals.view_scores)


def run_variants(
    out: Path,
    photos: Path,
    options: rivals.CliOptions,
    evaluate_options: rivals.CliOptions,
    scores: Callable[[Path], Metrics],
) -> tuple[Measurement, Metrics]:
    """Every variant on one set of photos, scored by ``run_quoin evaluate`` with what is ``evaluate_options``; one
    stereo for all."""
    posed = out / "posed"
    measurements = [run_quoin("plan", photos, "--out", posed, *options)]
    if measurements[0].exit_status:
        return measurements[0], {}
    rivals.run_priors(posed)
    metrics: Metrics = {"steps": ABLATION_STEPS}
    for number, (name, changes) in enumerate(ABLATION_VARIANTS.items()):
        run = rivals.copy_run(posed, out / f"variant{number}")
        measurements.append(
            rivals.train_run(photos, run, [*options, *rivals.set_options(*changes)], steps=ABLATION_STEPS)
        )
        measurements.append(run_quoin("evaluate", run, *evaluate_options))
        metrics[name] = {"changes": changes, **scores(run), **rivals.training_metrics(run)}
    return combine_measurements("python -m benchmarks ablation", measurements), metrics
