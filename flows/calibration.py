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

FILE = "calibration.json"
KEPT = 9  # ratios of a stage: the median of them outlives a run on a busy machine
LEAST_SECONDS = 2.0  # planned or taken; less says nothing of a device

Ratios = dict[str, dict[str, list[float]]]


def device_name(device: str) -> str:
    """``cpu`` or ``cuda`` as the machine calls it; two of one name are as fast."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {_processor()}"


def factors(device: str) -> dict[str, float]:
    """By stage, what is planned times this is what it takes on the device; stages that never ran there are left out."""
    return {stage: median(ratios) for stage, ratios in _read().get(device_name(device), {}).items() if ratios}


def learn(device: str, planned: Mapping[str, float], taken: Mapping[str, float]) -> None:
    """Add what stages took over what was planned of them (seconds, without factors); what cannot be kept is lost."""
    enough = {stage: s for stage, s in taken.items() if min(s, planned.get(stage, 0.0)) >= LEAST_SECONDS}
    if not enough:
        return
    known = _read()
    mine = known.setdefault(device_name(device), {})
    for stage, seconds in enough.items():
        mine[stage] = [*mine.get(stage, []), round(seconds / planned[stage], 4)][-KEPT:]
    path = home_folder() / FILE
    with suppress(OSError, QuoinError):  # a home that cannot be written: plans stay rough
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(known, indent=1, sort_keys=True).encode())


def seconds_taken(run: Run, since: float) -> dict[str, float]:
    """Seconds of stages that were committed after ``since`` (seconds of the epoch)."""
    fresh = {name: m.seconds for name, m in run.record.manifests.items() if m.committed_at >= since}
    blocks = [name for name in run.record.manifests if name.startswith("train/")]
    if any(name not in fresh for name in blocks):  # some blocks were there before: what is left is not the whole
        fresh.pop("train", None)
    return {name: seconds for name, seconds in fresh.items() if "/" not in name}


def _read() -> Ratios:
    try:
        found = json.loads((home_folder() / FILE).read_text(encoding="utf-8"))
        return {
            str(device): {str(stage): [float(r) for r in ratios if r > 0] for stage, ratios in stages.items()}
            for device, stages in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):  # none yet, or not ours
        return {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
