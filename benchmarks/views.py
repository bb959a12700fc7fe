"""Held-out views of real sets: quoin, NeuS and VolSDF for as many seconds each, on photos posed once.

The seconds are of all that only this method needs: stereo and training of ``run_quoin``, training of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import given, rivals
from benchmarks.measure import (
    DATA,
    REPOSITORY,
    BenchmarkSkipped,
    Measurement,
    Metrics,
    combine_measurements,
    read_json,
    run_quoin,
)
from benchmarks.sheet import contact_sheet, encode_jpeg, split_panels

COMPARED_METHODS = ("quoin", "neus", "volsdf")
VIEW_EDGE_PX = 128  # of the photos: two cores take minutes for a picture of this size by neus, and twice that by volsdf
MAX_SHEET_PHOTOS = 2  # held-out photos on the sheet


class ViewSet(NamedTuple):
    """Photos with masks beside them or without, and cameras where they are known."""

    folder: Path
    photos: str
    cameras: Callable[[Path, Path], Path] | None
    every: int = 16  # of so many photos one is held out


VIEW_SETS = {
    "dtu_scan65": ViewSet(DATA / "dtu_scan65", "image", given.dtu_transforms),
    "fountain": ViewSet(DATA / "strecha_fountain_p11", "images", given.strecha_transforms, every=8),
    "fox": ViewSet(DATA / "fox", "images", given.existing_transforms),
    "kitchen": ViewSet(DATA / "kitchen", "images", None),
}


def measure_views(name: str) -> Callable[[Path, float], tuple[Measurement, Metrics]]:
    """The case of a set of VIEW_SETS."""

    def measure(out: Path, seconds: float) -> tuple[Measurement, Metrics]:
        folder, photos, cameras, every = VIEW_SETS[name]
        options: list[str | Path] = [
            *rivals.set_options(f"partition.hold_out_every={every}", f"pose.photo_max_edge_px={VIEW_EDGE_PX}")
        ]
        if cameras is not None:
            options += ["--poses", cameras(folder, out / "transforms.json")]
        done = [run_quoin("plan", folder / photos, "--out", out / "posed", *options)]
        if done[0].exit_status:
            return done[0], {}
        methods: Metrics = {}
        for method in COMPARED_METHODS:
            measured, numbers = run_method(method, folder / photos, out, options, seconds)
            done += measured
            methods[method] = numbers
        numbers = {"seconds_each": seconds, "photo_edge_px": VIEW_EDGE_PX, "methods": methods}
        if picture := write_sheet(out, REPOSITORY / "docs" / "images" / f"views-{name}.jpg"):
            numbers["sheet"] = picture
        return combine_measurements(f"python -m benchmarks views-{name} --seconds {seconds:g}", done), numbers

    return measure


def run_method(
    method: str, photos: Path, out: Path, options: rivals.CliOptions, seconds: float
) -> tuple[list[Measurement], Metrics]:
    """Train a copy of the posed run by ``method`` and score it on the photos that were held out."""
    run, seconds_left = rivals.copy_run(out / "posed", out / method), seconds
    own = rivals.set_options(f"train.method={method}")
    if method == "quoin":
        seconds_left -= rivals.run_priors(run)
        if seconds_left <= 0:
            raise BenchmarkSkipped(f"stereo alone takes {seconds - seconds_left:.0f} s: give more --seconds")
    else:
        own += rivals.set_options("priors.stereo_edge_px=0")
    done = [
        rivals.train_run(photos, run, [*options, *own], seconds=seconds_left),
        run_quoin("evaluate", run, "--views"),
    ]
    return done, {**rivals.view_scores(run), **rivals.training_metrics(run)}


def write_sheet(out: Path, to: Path) -> str:
    """Rows: photos held out; columns: colour and normals by each method. Without the photos: not all may be shown."""
    scored = {method: read_json(out / method / "evaluation.json").get("views", {}) for method in COMPARED_METHODS}
    methods = [method for method, views in scored.items() if views]
    if not methods:
        return ""
    names = [view["photo"] for view in scored[methods[0]]["photos"]]
    rows = []
    for name in names[:: max(1, len(names) // MAX_SHEET_PHOTOS)][:MAX_SHEET_PHOTOS]:
        parts = [split_panels(out / method / "views" / f"{name}.png") for method in methods]
        rows.append([picture for part in parts for picture in part[1:3]])
    titles = [f"{method}{what}" for method in methods for what in ("", ", normals")]
    to.write_bytes(encode_jpeg(contact_sheet(titles, rows)))
    return str(to)
