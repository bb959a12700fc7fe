"""Held-out views of real sets: quoin, NeuS and VolSDF for as many seconds each, on photos posed once.

The seconds are of all that only this method needs: stereo and training of ``quoin``, training of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import given, rivals
from benchmarks.measure import DATA, ROOT, Measured, Numbers, Skipped, quoin, read, together
from benchmarks.sheet import as_jpeg, contact_sheet, parts_of

METHODS = ("quoin", "neus", "volsdf")
EDGE_PX = 128  # of the photos: two cores take minutes for a picture of this size by neus, and twice that by volsdf
SHOWN = 2  # held-out photos on the sheet


class Set(NamedTuple):
    """Photos with masks beside them or without, and cameras where they are known."""

    folder: Path
    photos: str
    cameras: Callable[[Path, Path], Path] | None
    every: int = 16  # of so many photos one is held out


SETS = {
    "dtu_scan65": Set(DATA / "dtu_scan65", "image", given.dtu),
    "fountain": Set(DATA / "strecha_fountain_p11", "images", given.strecha, every=8),
    "fox": Set(DATA / "fox", "images", given.as_they_are),
    "kitchen": Set(DATA / "kitchen", "images", None),
}


def case(name: str) -> Callable[[Path, float], tuple[Measured, Numbers]]:
    """The case of a set of SETS."""

    def measure(out: Path, seconds: float) -> tuple[Measured, Numbers]:
        folder, photos, cameras, every = SETS[name]
        options: list[str | Path] = [
            *rivals.settings(f"partition.hold_out_every={every}", f"pose.photo_max_edge_px={EDGE_PX}")
        ]
        if cameras is not None:
            options += ["--poses", cameras(folder, out / "transforms.json")]
        done = [quoin("plan", folder / photos, "--out", out / "posed", *options)]
        if done[0].exit_status:
            return done[0], {}
        methods: Numbers = {}
        for method in METHODS:
            measured, numbers = compete(method, folder / photos, out, options, seconds)
            done += measured
            methods[method] = numbers
        numbers = {"seconds_each": seconds, "photo_edge_px": EDGE_PX, "methods": methods}
        if picture := write_sheet(out, ROOT / "docs" / "images" / f"views-{name}.jpg"):
            numbers["sheet"] = picture
        return together(f"python -m benchmarks views-{name} --seconds {seconds:g}", done), numbers

    return measure


def compete(
    method: str, photos: Path, out: Path, options: rivals.Options, seconds: float
) -> tuple[list[Measured], Numbers]:
    """Train a copy of the posed run by ``method`` and score it on the photos that were held out."""
    run, left = rivals.copied(out / "posed", out / method), seconds
    own = rivals.settings(f"train.method={method}")
    if method == "quoin":
        left -= rivals.find_stereo(run)
        if left <= 0:
            raise Skipped(f"stereo alone takes {seconds - left:.0f} s: give more --seconds")
    else:
        own += rivals.settings("priors.stereo_edge_px=0")
    done = [rivals.trained(photos, run, [*options, *own], seconds=left), quoin("evaluate", run, "--views")]
    return done, {**rivals.view_scores(run), **rivals.training(run)}


def write_sheet(out: Path, to: Path) -> str:
    """Rows: photos held out; columns: colour and normals by each method. Without the photos: not all may be shown."""
    scored = {method: read(out / method / "evaluation.json").get("views", {}) for method in METHODS}
    methods = [method for method, views in scored.items() if views]
    if not methods:
        return ""
    names = [view["photo"] for view in scored[methods[0]]["photos"]]
    rows = []
    for name in names[:: max(1, len(names) // SHOWN)][:SHOWN]:
        parts = [parts_of(out / method / "views" / f"{name}.png") for method in methods]
        rows.append([picture for part in parts for picture in part[1:3]])
    titles = [f"{method}{what}" for method in methods for what in ("", ", normals")]
    to.write_bytes(as_jpeg(contact_sheet(titles, rows)))
    return str(to)
