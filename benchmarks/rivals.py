"""Several trainings of one run: posed once, copied, and each trained in a process of its own until its time is up."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Metrics, read_json, run_quoin

UNLIMITED_STEPS = 10_000_000  # steps, more than time allows: the budget ends the training, and with it all schedules
REFUSED = 2  # exit status
CliOptions = Sequence[str | Path]


def set_options(*pairs: str) -> list[str]:
    """``section.key=value`` as the command line wants them."""
    return [word for pair in pairs for word in ("--set", pair)]


def run_priors(run: Path) -> float:
    """Stereo of a posed run, by its own settings; the seconds it took."""
    from quoin.flows.pipeline import run_stages
    from quoin.flows.session import make_workers, resume_run, run_settings
    from quoin.pipeline.core.events import Reporter

    with resume_run(run) as opened:
        run_stages(opened, run_settings(opened), make_workers(), Reporter(), last_stage="priors")
        return opened.require("priors").seconds


def train_run(
    photos: Path, run: Path, options: CliOptions, *, seconds: float = 0.0, steps: int = UNLIMITED_STEPS
) -> Measurement:
    """The run trained for so many seconds, all its blocks together, or so many steps, each block, and fused.

    Where there is no surface by then fusion refuses: that is a result here (``training_metrics`` tells), and no
    failure.
    """
    limits = set_options(f"train.steps={steps}", "train.preview_minutes=0")
    if seconds:
        limits += ["--budget", f"{seconds:.3f}s"]
    measured = run_quoin("reconstruct", photos, "--out", run, *options, *limits)
    refused = measured.exit_status == REFUSED and "train" in read_json(run / "run.json").get("manifests", {})
    return dataclasses.replace(measured, exit_status=0) if refused else measured


def copy_run(run: Path, to: Path) -> Path:
    """A copy of a run, to go on in another way from where it is; one of an earlier time gives way."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(run, to)
    return to


def training_metrics(run: Path) -> Metrics:
    """Steps, speed and time of a training, and whether a surface came of it."""
    manifests = read_json(run / "run.json").get("manifests", {})
    if "train" not in manifests:
        return {"trained": False}
    blocks, fused = manifests["train"]["result"]["blocks"], manifests.get("fuse")
    return {
        "steps": [block["steps"] for block in blocks],
        "rays_per_s": [round(block["rays_per_s"] or 0.0, 1) for block in blocks],
        "tile_psnr_db": [block["heldout_psnr_db"] for block in blocks],
        "seconds": {name: manifests[name]["seconds"] for name in ("priors", "train")} | training_seconds(run),
        "surface": f"{fused['result']['n_faces']} faces" if fused else "none",
    }


def training_seconds(run: Path) -> Metrics:
    """Seconds of all blocks, when last trained: of steps, which is what a budget limits, and of extracting surfaces."""
    events = [json.loads(line) for line in (run / "logs" / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    last_stage = max(i for i, event in enumerate(events) if event["kind"] == "start" and event["name"] == "train")
    ended = [event for event in events[last_stage:] if event["kind"] == "end" and event["name"].startswith("train/")]
    extract = sum(event["seconds"] for event in ended if event["name"].endswith("/extract"))
    return {"steps": sum(event["seconds"] for event in ended) - extract, "extract": extract}


def view_scores(run: Path) -> Metrics:
    """Means over the photos that were held out, as ``run_quoin evaluate --views`` left them."""
    views = read_json(run / "evaluation.json").get("views")
    if not views:
        return {}
    return {**{name: views[name] for name in ("psnr_db", "psnr_corrected_db", "ssim")}, "photos": len(views["photos"])}


def surface_scores(run: Path) -> Metrics:
    """Precision, recall and F by share of the truth's diagonal, as ``run_quoin evaluate --truth`` left them."""
    surface = read_json(run / "evaluation.json").get("surface")
    return {
        f"{score['distance_percent']:g} %": {name: score[name] for name in ("precision", "recall", "f_score")}
        for score in (surface or {}).get("scores", [])
    }


def generate_demo_data(folder: Path, changes: Mapping[str, Any]) -> tuple[Path, Path]:
    """Photos and truth of a demo with ``changes`` to its settings, in ``folder``."""
    from quoin.pipeline.core.config import validate_config
    from quoin.pipeline.core.events import Reporter
    from quoin.tools.synthetic.config import SyntheticConfig
    from quoin.tools.synthetic.generate import generate_photos

    generate_photos(folder, validate_config(SyntheticConfig, dict(changes)), 0, Reporter())
    return folder / "photos", folder / "truth"
