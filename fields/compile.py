"""torch.compile where it works, eager where it does not; the compiled code is cached on disk between processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def missing_compiler(device: str) -> str | None:
    """Why the compiled path cannot be used on ``device``, or None where it can."""
    if device.startswith("cuda"):
        try:
            import triton  # noqa: F401  (asked for, not used)
        except ImportError:
            return "triton is not installed"
        return None
    return None if cpp_compiler() else "no C++ compiler (g++) found"


def cpp_compiler() -> str | None:
    """The C++ compiler that would be used on a CPU, or None."""
    return next(filter(None, (shutil.which(os.environ.get("CXX", name)) for name in ("g++", "clang++"))), None)


def inductor_cache_folder() -> Path:
    """Where compiled code is kept between processes."""
    own = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quoin" / "inductor"
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", own))


def compile_function(function: Callable[..., Any], device: str, *, single_threaded: bool = False) -> Callable[..., Any]:
    """``function`` as one compiled graph of fixed shapes, or itself where nothing can compile it.

    ``single_threaded`` on a CPU: code for one core, which may add up without atomic operations.
    """
    if missing_compiler(device):
        return function
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(inductor_cache_folder()))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    import torch

    # sizes of photos and volumes differ from block to block; ``mark_dynamic`` says which may, all else is fixed
    torch._dynamo.config.force_parameter_static_shapes = False
    torch._dynamo.config.force_nn_module_property_static_shapes = False
    options: dict[str, str | int | bool] | None = {"cpp.threads": 1} if single_threaded and device == "cpu" else None
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def mark_dynamic(tensor: Any, *dims: int) -> None:
    """Let these dimensions differ from block to block without compiling anew."""
    import torch

    for dim in dims:
        torch._dynamo.mark_dynamic(tensor, dim)
