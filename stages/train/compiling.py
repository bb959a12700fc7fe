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
    if not any(shutil.which(os.environ.get("CXX", name)) for name in ("g++", "clang++")):
        return "no C++ compiler (g++) found"
    return None


def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """``function`` as one compiled graph of fixed shapes, or itself where nothing can compile it."""
    if compiler_missing(device):
        return function
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quoin" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    import torch

    return torch.compile(function, fullgraph=True, dynamic=False)
