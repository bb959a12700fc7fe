"""What each part of the default method brings: without it, everything else and the number of steps the same.

Steps and not seconds, so that the surfaces can be compared whatever else the machine does; the seconds stand beside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import given, rivals
from benchmarks.measure import DATA, Measured, Numbers, quoin, together

FOUNTAIN = DATA / "strecha_fountain_p11"
EVERY = 8  # of so many photos of the fountain one is held out
N_PHOTOS = 40  # of the demo
STEPS = 300  # of the demo's preset
VARIANTS: dict[str, list[str]] = {
    "everything": [],
    "64 + 64 samples by importance": ["train.sampler={kind: importance, coarse: 64, rounds: 4, per_round: 16}"],
    "64 guided samples": ["train.sampler.samples=64"],
    "no points": ["train.losses.points=0", "train.losses.free=0"],
    "no stereo": ["priors.stereo_edge_px=0"],
    "no patches": ["train.losses.patch=0"],
    "all levels at once": ["train.encoding.start_levels=10"],
    "no appearance": ["train.colour.gain=false", "train.colour.code=0"],
}


def demo(out: Path) -> tuple[Measured, Numbers]:
    """F on the generated landmark, poses given."""
    photos, truth = rivals.generated(out / "demo", {"n_photos": N_PHOTOS})
    options: rivals.Options = ["--preset", "demo", "--poses", truth / "transforms.json"]
    return variants(out, photos, options, ["--truth", truth / "mesh.ply"], rivals.surface_scores)


def fountain(out: Path) -> tuple[Measured, Numbers]:
    """Views held out of the fountain, poses given."""
    poses = given.strecha(FOUNTAIN, out / "transforms.json")
    options: rivals.Options = ["--poses", poses, *rivals.settings(f"partition.hold_out_every={EVERY}")]
    return variants(out, FOUNTAIN / "images", options, ["--views"], rivals.view_scores)


def variants(
    out: Path,
    photos: Path,
    options: rivals.Options,
    asked: rivals.Options,
    scores: Callable[[Path], Numbers],
) -> tuple[Measured, Numbers]:
    """Every variant on one set of photos, scored by ``quoin evaluate`` with what is ``asked``; one stereo for all."""
    posed = out / "posed"
    done = [quoin("plan", photos, "--out", posed, *options)]
    if done[0].exit_status:
        return done[0], {}
    rivals.find_stereo(posed)
    found: Numbers = {"steps": STEPS}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        run = rivals.copied(posed, out / f"variant{number}")
        done.append(rivals.trained(photos, run, [*options, *rivals.settings(*changes)], steps=STEPS))
        done.append(quoin("evaluate", run, *asked))
        found[name] = {"changes": changes, **scores(run), **rivals.training(run)}
    return together("python -m benchmarks ablation", done), found
