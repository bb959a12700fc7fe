"""torch.compile where it works, eager where it does not; the compiled code is cached on disk between processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def compiler_missing(device: str) -> str | None:
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


def cache_folder() -> Path:
    """Where compiled code is kept between processes."""
    own = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quoin" / "inductor"
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", own))


def compiled(function: Callable[..., Any], device: str, *, one_thread: bool = False) -> Callable[..., Any]:
    """``function`` as one compiled graph of fixed shapes, or itself where nothing can compile it.

    ``one_thread`` on a CPU: code for one core, which may add up without atomic operations.
    """
    if compiler_missing(device):
        return function
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    import torch

    # sizes of photos and volumes differ from block to block; ``free_sizes`` says which may, all else is fixed
    torch._dynamo.config.force_parameter_static_shapes = False
    torch._dynamo.config.force_nn_module_property_static_shapes = False
    options: dict[str, str | int | bool] | None = {"cpp.threads": 1} if one_thread and device == "cpu" else None
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def free_sizes(tensor: Any, *dims: int) -> None:
    """Let these dimensions differ from block to block without compiling anew."""
    import torch

    for dim in dims:
        torch._dynamo.mark_dynamic(tensor, dim)
