"""What a run costs as it grows: generated towns of 4, 16 and 64 quarters, each about a block, trained for a few steps.

``python -m benchmarks scale`` runs all, ``scale-4`` and so on one of them; ``python -m benchmarks.scale`` fits what is
in results/ and draws docs/images/scale.svg. Seconds are those of the stages' manifests; fusion's memory is that of a
process that fuses and reports, and nothing else.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import (
    REPOSITORY,
    Measurement,
    Metrics,
    combine_measurements,
    read_json,
    read_stage_results,
    run_quoin,
)

TOWN_QUARTERS = (4, 16, 64)
SCALE_STEPS = 15
LIGHT_SETTINGS = (
    "--set",
    f"train.steps={SCALE_STEPS}",
    "--set",
    "priors.stereo_edge_px=400",
    "--set",
    "train.preview_minutes=0",
)
SCALE_STAGES = ("ingest", "pose", "partition", "priors", "train", "fuse", "report")
SCALE_RESULTS = Path(__file__).parent / "results"
SCALE_PLOT = REPOSITORY / "docs" / "images" / "scale.svg"


def measure_scale(out: Path, quarters: Sequence[int] = TOWN_QUARTERS) -> tuple[Measurement, Metrics]:
    """Runs of towns, one after the other."""
    done, numbers = [], {}
    for size in quarters:
        folder = out / str(size)
        town = ("--scene", "town", "--quarters", str(size), "--engine", "direct", "--quiet")
        log = folder / "run" / "logs" / "events.jsonl"
        log.unlink(missing_ok=True)  # of an earlier measurement in this folder
        generated = run_quoin(
            "demo", "--out", folder, *town, *LIGHT_SETTINGS, until=functools.partial(has_fusion_begun, log)
        )
        fused = run_quoin("resume", folder / "run", "--engine", "direct", "--quiet")
        done += [
            generated,
            fused,
            run_quoin("demo", "--out", folder, *town, *LIGHT_SETTINGS),
        ]  # which scores what is there
        stage_results = read_stage_results(folder / "run")
        numbers[str(size)] = {
            **town_metrics(stage_results["stages"]),
            "train_peak_memory_bytes": generated.peak_memory_bytes,
            "fuse_peak_memory_bytes": fused.peak_memory_bytes,
        }
        numbers[str(size)]["evaluation"] = read_json(folder / "run" / "evaluation.json")
    return combine_measurements("python -m benchmarks scale", done), {"towns": numbers}


def has_fusion_begun(log: Path) -> bool:
    """Whether a run's events tell that fusion has begun."""
    return log.exists() and b'"name": "fuse/' in log.read_bytes()


def town_metrics(stage_results: Mapping[str, dict]) -> Metrics:
    """Blocks, photos and seconds by stage of a finished run, from what its stages returned."""
    return {
        "n_blocks": stage_results["partition"]["n_blocks"],
        "n_photos": stage_results["pose"]["n_registered"],
        "n_pairs": stage_results["pose"]["n_pairs"],
        "n_faces": stage_results.get("fuse", {}).get("n_faces"),
        "seconds": {name: stage_results[name]["seconds"] for name in SCALE_STAGES if name in stage_results},
        "parts": {
            name: stage_results[name]["parts"] for name in SCALE_STAGES if "parts" in stage_results.get(name, {})
        },
        "train_blocks_seconds": [
            v["seconds"] for name, v in sorted(stage_results.items()) if name.startswith("train/")
        ],
    }


def town_case(size: int) -> functools.partial:
    """The case of one town."""
    return functools.partial(measure_scale, quarters=(size,))


def growth_exponent(blocks: Sequence[float], seconds: Sequence[float]) -> float:
    """The power of the number of blocks by which seconds grow, least squares on logarithms; NaN from one town alone."""
    if len(blocks) < 2:
        return float("nan")
    return float(np.polyfit(np.log(blocks), np.log(np.maximum(seconds, 1e-3)), 1)[0])


def fit_line(blocks: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds to begin with and per block, neither below 0; through the origin from one town alone."""
    from scipy.optimize import nnls

    x = np.array(blocks, float)
    columns = np.stack([np.ones_like(x), x], axis=1) / np.array(seconds)[:, None]  # relative errors count
    if len(x) < 2:
        return 0.0, float(seconds[0] / x[0])
    (start, slope), _ = nnls(columns, np.ones(len(x)))
    return float(start), float(slope)


def read_town_metrics() -> dict[int, Metrics]:
    """Towns that have been measured, by quarters."""
    stage_results: dict[int, Metrics] = {}
    for path in sorted(SCALE_RESULTS.glob("scale*.json")):
        stage_results |= {int(size): numbers for size, numbers in read_json(path).get("towns", {}).items()}
    return dict(sorted(stage_results.items()))


def fit_stage_costs(towns: Mapping[int, Metrics]) -> Metrics:
    """By stage: exponent, seconds to begin with, seconds per block; of the towns that have got so far."""
    out: Metrics = {}
    for stage in SCALE_STAGES:
        measured_towns = [town for town in towns.values() if stage in town["seconds"]]
        blocks, seconds = [t["n_blocks"] for t in measured_towns], [t["seconds"][stage] for t in measured_towns]
        if measured_towns:
            start, slope = fit_line(blocks, seconds)
            out[stage] = {"exponent": growth_exponent(blocks, seconds), "start_s": start, "s_per_block": slope}
    return out


def draw_scale_plot(towns: Mapping[int, Metrics]) -> str:
    """Seconds by blocks, both logarithmic, a line a stage, as SVG."""
    width, height, left, bottom = 640, 400, 60, 44
    blocks = np.array([town["n_blocks"] for town in towns.values()], float)
    curves = {s: np.array([t["seconds"].get(s, np.nan) for t in towns.values()], float) for s in SCALE_STAGES}
    low, high = np.floor(np.log10(0.1)), np.ceil(np.log10(np.nanmax(np.stack(list(curves.values())))))
    span = np.log10(blocks.max() * 1.3) - np.log10(blocks.min() / 1.3)

    def at(n: float, s: float) -> tuple[float, float]:
        x = left + (np.log10(n) - np.log10(blocks.min() / 1.3)) / span * (width - left - 110)
        y = height - bottom - (np.log10(max(s, 0.1)) - low) / (high - low) * (height - bottom - 16)
        return round(float(x), 1), round(float(y), 1)

    colors = ("#888", "#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d35400", "#555")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for power in range(int(low), int(high) + 1):
        _, y = at(blocks.min(), 10.0**power)
        parts.append(
            f'<path d="M{left} {y}H{width - 110}" stroke="#ddd"/><text x="8" y="{y + 4}">{10.0**power:g} s</text>'
        )
    for n in blocks:
        x, _ = at(n, 1.0)
        parts.append(f'<text x="{x}" y="{height - 24}" text-anchor="middle">{n:g}</text>')
    parts.append(f'<text x="{(left + width - 110) / 2}" y="{height - 6}" text-anchor="middle">blocks</text>')
    names: list[tuple[float, str, str]] = []
    for (stage, seconds), color in zip(curves.items(), colors, strict=True):
        places = [at(n, s) for n, s in zip(blocks, seconds, strict=True) if np.isfinite(s)]
        if not places:
            continue
        polyline = " ".join(f"{x},{y}" for x, y in places)
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>' for x, y in places)
        parts.append(f'<polyline points="{polyline}" fill="none" stroke="{color}" stroke-width="2"/>{dots}')
        names.append((places[-1][1] + 4, color, stage))
    lowest = -np.inf
    for y, color, stage in sorted(names):
        lowest = max(y, lowest + 13)  # one below the other where curves end together
        parts.append(f'<text x="{width - 104}" y="{lowest}" fill="{color}">{stage}</text>')
    return "\n".join([*parts, "</svg>"])


def main() -> None:
    towns = read_town_metrics()
    if not towns:
        raise SystemExit("nothing measured yet: python -m benchmarks scale-4")
    SCALE_PLOT.write_text(draw_scale_plot(towns), encoding="utf-8")
    print(json.dumps(fit_stage_costs(towns), indent=1))
    memory = {t["n_blocks"]: t["fuse_peak_memory_bytes"] for t in towns.values() if "fuse_peak_memory_bytes" in t}
    print("fusion's memory, GiB by blocks:", {n: round(b / 2**30, 2) for n, b in memory.items()})


if __name__ == "__main__":
    main()
