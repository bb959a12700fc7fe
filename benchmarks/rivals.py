"""Several trainings of one run: posed once, copied, and each trained in a process of its own until its time is up."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Measured, Numbers, quoin, read

ENDLESS = 10_000_000  # steps, more than time allows: the budget ends the training, and with it all schedules
REFUSED = 2  # exit status
Options = Sequence[str | Path]


def settings(*pairs: str) -> list[str]:
    """``section.key=value`` as the command line wants them."""
    return [word for pair in pairs for word in ("--set", pair)]


def find_stereo(run: Path) -> float:
    """Stereo of a posed run, by its own settings; the seconds it took."""
    from quoin.flows.pipeline import reconstruct
    from quoin.flows.session import make_executor, resumed, settings_of
    from quoin.pipeline.core.events import Reporter

    with resumed(run) as opened:
        reconstruct(opened, settings_of(opened), make_executor(), Reporter(), last="priors")
        return opened.require("priors").seconds


def trained(photos: Path, run: Path, options: Options, *, seconds: float = 0.0, steps: int = ENDLESS) -> Measured:
    """The run trained for so many seconds, all its blocks together, or so many steps, each block, and fused.

    Where there is no surface by then fusion refuses: that is a result here (``training`` tells), and no failure.
    """
    limits = settings(f"train.steps={steps}", "train.preview_minutes=0")
    if seconds:
        limits += ["--budget", f"{seconds:.3f}s"]
    measured = quoin("reconstruct", photos, "--out", run, *options, *limits)
    refused = measured.exit_status == REFUSED and "train" in read(run / "run.json").get("manifests", {})
    return dataclasses.replace(measured, exit_status=0) if refused else measured


def copied(run: Path, to: Path) -> Path:
    """A copy of a run, to go on in another way from where it is; one of an earlier time gives way."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(run, to)
    return to


def training(run: Path) -> Numbers:
    """Steps, speed and time of a training, and whether a surface came of it."""
    manifests = read(run / "run.json").get("manifests", {})
    if "train" not in manifests:
        return {"trained": False}
    blocks, fused = manifests["train"]["result"]["blocks"], manifests.get("fuse")
    return {
        "steps": [block["steps"] for block in blocks],
        "rays_per_s": [round(block["rays_per_s"] or 0.0, 1) for block in blocks],
        "tile_psnr_db": [block["heldout_psnr_db"] for block in blocks],
        "seconds": {name: manifests[name]["seconds"] for name in ("priors", "train")} | parts_of_training(run),
        "surface": f"{fused['result']['n_faces']} faces" if fused else "none",
    }


def parts_of_training(run: Path) -> Numbers:
    """Seconds of all blocks, when last trained: of steps, which is what a budget limits, and of extracting surfaces."""
    events = [json.loads(line) for line in (run / "logs" / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    last = max(i for i, event in enumerate(events) if event["kind"] == "start" and event["name"] == "train")
    ended = [event for event in events[last:] if event["kind"] == "end" and event["name"].startswith("train/")]
    extract = sum(event["seconds"] for event in ended if event["name"].endswith("/extract"))
    return {"steps": sum(event["seconds"] for event in ended) - extract, "extract": extract}


def view_scores(run: Path) -> Numbers:
    """Means over the photos that were held out, as ``quoin evaluate --views`` left them."""
    views = read(run / "evaluation.json").get("views")
    if not views:
        return {}
    return {**{name: views[name] for name in ("psnr_db", "psnr_corrected_db", "ssim")}, "photos": len(views["photos"])}


def surface_scores(run: Path) -> Numbers:
    """Precision, recall and F by share of the truth's diagonal, as ``quoin evaluate --truth`` left them."""
    surface = read(run / "evaluation.json").get("surface")
    return {
        f"{score['distance_percent']:g} %": {name: score[name] for name in ("precision", "recall", "f")}
        for score in (surface or {}).get("scores", [])
    }


def generated(folder: Path, changes: Mapping[str, Any]) -> tuple[Path, Path]:
    """Photos and truth of a demo with ``changes`` to its settings, in ``folder``."""
    from quoin.pipeline.core.config import build
    from quoin.pipeline.core.events import Reporter
    from quoin.tools.synthetic.config import DemoConfig
    from quoin.tools.synthetic.generate import generate

    generate(folder, build(DemoConfig, dict(changes)), 0, Reporter())
    return folder / "photos", folder / "truth"
