"""The device that torch computes on: which it is, and what it is called. torch is imported where it is needed."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.workers import Device


def pick_device(requested: Device) -> Device:
    """``cpu`` or ``cuda``, as ``requested`` means on this machine; QuoinError where CUDA is requested and absent."""
    if requested == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise QuoinError("No CUDA device is usable here", where=requested, hint="use --device cpu, or see quoin doctor")
    return "cpu"


def device_name(device: str) -> str:
    """Name of the CPU or GPU that ``device`` is on this machine; devices of one name are taken to be equally fast."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {_processor()}"


def gpu_memory_bytes() -> int:
    """Memory of the GPU."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
