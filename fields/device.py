"""The device that torch computes on, and compiled functions for it; torch is imported where it is needed.

torch.compile is used where a compiler is available, eager code elsewhere; compiled code is cached on disk between
processes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def missing_compiler(device: str) -> str | None:
    """Reason why functions cannot be compiled for ``device``, None where they can."""
    if device.startswith("cuda"):
        try:
            import triton  # noqa: F401  (imported to test for it)
        except ImportError:
            return "triton is not installed"
        return None
    return None if cpp_compiler() else "no C++ compiler (g++) found"


def is_compiled(device: str) -> bool:
    """Whether ``compile_function`` compiles for ``device`` here; torch leaves it where TORCHDYNAMO_DISABLE is set."""
    import torch

    return missing_compiler(device) is None and not torch._dynamo.config.disable


def cpp_compiler() -> str | None:
    """Path of the C++ compiler for CPU code, None without one."""
    return next(filter(None, (shutil.which(os.environ.get("CXX", name)) for name in ("g++", "clang++"))), None)


def inductor_cache_folder() -> Path:
    """Folder of the cache of compiled code, which ``import quoin`` has chosen before torch could."""
    return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])


def compile_function(function: Callable[..., Any], device: str, *, single_threaded: bool = False) -> Callable[..., Any]:
    """``function`` compiled as one graph of fixed shapes; ``function`` itself where no compiler is available.

    ``single_threaded``: CPU code for one core, which may add without atomic operations.
    """
    if missing_compiler(device):
        return function
    with contextlib.suppress(OSError):  # torch says so when it compiles
        inductor_cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    import torch

    # sizes of photos and volumes differ between blocks: dimensions named by ``mark_dynamic``; all others are fixed
    torch._dynamo.config.force_parameter_static_shapes = False
    torch._dynamo.config.force_nn_module_property_static_shapes = False
    options: dict[str, str | int | bool] | None = {"cpp.threads": 1} if single_threaded and device == "cpu" else None
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def mark_dynamic(tensor: Any, *dims: int) -> None:
    """Allow these dimensions to differ between blocks without compiling again."""
    import torch

    for dim in dims:
        torch._dynamo.mark_dynamic(tensor, dim)
