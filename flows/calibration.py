"""How fast this device is: for each stage the seconds it took over those planned, learnt from runs that were done here.

QUOIN_HOME/calibration.json holds, by device and stage, the last ratios; a plan multiplies by their median. Nothing is
measured for its own sake: the first finished run on a device tells more than a benchmark of a minute could.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import write_atomic
from quoin.pipeline.storage.cache import home_folder
from quoin.pipeline.storage.run import Run

CALIBRATION_FILE = "calibration.json"
MAX_RATIOS = 9  # ratios of a stage: the median of them outlives a run on a busy machine
MIN_SECONDS = 2.0  # planned or taken; less says nothing of a device

Ratios = dict[str, dict[str, list[float]]]


def device_name(device: str) -> str:
    """``cpu`` or ``cuda`` as the machine calls it; two of one name are as fast."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {_processor()}"


def time_factors(device: str) -> dict[str, float]:
    """By stage, what is planned times this is what it takes on the device; stages that never ran there are left out."""
    return {stage: median(ratios) for stage, ratios in _read().get(device_name(device), {}).items() if ratios}


def record_ratios(device: str, planned: Mapping[str, float], taken: Mapping[str, float]) -> None:
    """Add what stages took over what was planned of them (seconds, without factors); what cannot be kept is lost."""
    usable = {stage: s for stage, s in taken.items() if min(s, planned.get(stage, 0.0)) >= MIN_SECONDS}
    if not usable:
        return
    all_ratios = _read()
    device_ratios = all_ratios.setdefault(device_name(device), {})
    for stage, seconds in usable.items():
        device_ratios[stage] = [*device_ratios.get(stage, []), round(seconds / planned[stage], 4)][-MAX_RATIOS:]
    path = home_folder() / CALIBRATION_FILE
    with suppress(OSError, QuoinError):  # a home that cannot be written: plans stay rough
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(all_ratios, indent=1, sort_keys=True).encode())


def seconds_taken(run: Run, since: float) -> dict[str, float]:
    """Seconds of stages that were committed after ``since`` (seconds of the epoch)."""
    recent = {name: m.seconds for name, m in run.record.manifests.items() if m.committed_at >= since}
    blocks = [name for name in run.record.manifests if name.startswith("train/")]
    if any(name not in recent for name in blocks):  # some blocks were there before: what is left is not the whole
        recent.pop("train", None)
    return {name: seconds for name, seconds in recent.items() if "/" not in name}


def _read() -> Ratios:
    try:
        stored = json.loads((home_folder() / CALIBRATION_FILE).read_text(encoding="utf-8"))
        return {
            str(device): {str(stage): [float(r) for r in ratios if r > 0] for stage, ratios in stages.items()}
            for device, stages in stored.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):  # none yet, or not ours
        return {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
