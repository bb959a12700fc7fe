"""Calibration of time estimates: for each stage the ratio of seconds taken to seconds estimated, from finished runs.

QUOIN_HOME/calibration.json holds the last ratios by device and stage; estimates are multiplied by their median. There
is no separate benchmark: the first finished run on a device says more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from statistics import median

from quoin.fields.device import device_name
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.cache import home_folder
from quoin.pipeline.storage.disk import write_atomic
from quoin.pipeline.storage.run import Run

CALIBRATION_FILE = "calibration.json"
MAX_RATIOS = 9  # of a stage: their median is robust to a run on a busy machine
MIN_SECONDS = 2.0  # estimated or taken; shorter times say nothing about a device

Ratios = dict[str, dict[str, list[float]]]


def time_factors(device: str) -> dict[str, float]:
    """By stage, the factor from estimated seconds to those on the device; without stages that never ran there."""
    return {stage: median(ratios) for stage, ratios in _read().get(device_name(device), {}).items() if ratios}


def record_ratios(device: str, planned: Mapping[str, float], taken: Mapping[str, float]) -> None:
    """Record the ratios of ``taken`` to ``planned`` seconds (without factors) of stages; skipped where not writable."""
    usable = {stage: s for stage, s in taken.items() if min(s, planned.get(stage, 0.0)) >= MIN_SECONDS}
    if not usable:
        return
    all_ratios = _read()
    device_ratios = all_ratios.setdefault(device_name(device), {})
    for stage, seconds in usable.items():
        device_ratios[stage] = [*device_ratios.get(stage, []), round(seconds / planned[stage], 4)][-MAX_RATIOS:]
    path = home_folder() / CALIBRATION_FILE
    with suppress(OSError, QuoinError):  # a home that is not writable: estimates stay rough
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(all_ratios, indent=1, sort_keys=True).encode())


def seconds_taken(run: Run, since: float) -> dict[str, float]:
    """Seconds of stages that were committed after ``since`` (seconds since the epoch)."""
    recent = {name: m.seconds for name, m in run.record.manifests.items() if m.committed_at >= since}
    blocks = [name for name in run.record.manifests if name.startswith("train/")]
    if any(name not in recent for name in blocks):  # some blocks were trained before: these are not all
        recent.pop("train", None)
    return {name: seconds for name, seconds in recent.items() if "/" not in name}


def _read() -> Ratios:
    try:
        stored = json.loads((home_folder() / CALIBRATION_FILE).read_text(encoding="utf-8"))
        return {
            str(device): {str(stage): [float(r) for r in ratios if r > 0] for stage, ratios in stages.items()}
            for device, stages in stored.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):  # missing, or damaged
        return {}
