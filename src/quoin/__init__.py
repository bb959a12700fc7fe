"""Photo collections to surface meshes, block by block.

The Python interface: ``run = quoin.reconstruct(photos, out)`` or ``run = quoin.open_run(folder)``, then ``run.mesh()``,
``run.cameras()``, ``run.photos()``, ``run.report()``. Names are imported when first used, so ``import quoin`` is light.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quoin.flows.api import Cameras, RunResults, open_run, reconstruct
    from quoin.flows.settings import Settings, load_settings, method_names, preset_names
    from quoin.pipeline.core.errors import PartialResult, QuoinError
    from quoin.pipeline.core.reasons import Reason
    from quoin.stages.report.facts import PhotoFacts, Report

# Threads that wait for each other go to sleep soon: to spin for long costs a multiple on a machine that does other work
# as well (benchmarks/README.md). GNU OpenMP, as torch and pycolmap bring it, reads this when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Compiled code is executed: it is kept in a folder of the user's own. torch takes one in the temporary directory, which
# anybody can foresee, as soon as it is imported without this.
_HOME = os.environ.get("QUOIN_HOME") or os.path.join(os.path.expanduser("~"), ".quoin")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(_HOME, "cache", "inductor"))

__version__ = "0.1.0"

__all__ = [
    "Cameras",
    "PartialResult",
    "PhotoFacts",
    "QuoinError",
    "Reason",
    "Report",
    "RunResults",
    "Settings",
    "load_settings",
    "method_names",
    "open_run",
    "preset_names",
    "reconstruct",
]

_MODULES = {
    "quoin.flows.api": ("Cameras", "RunResults", "open_run", "reconstruct"),
    "quoin.flows.settings": ("Settings", "load_settings", "method_names", "preset_names"),
    "quoin.pipeline.core.errors": ("PartialResult", "QuoinError"),
    "quoin.pipeline.core.reasons": ("Reason",),
    "quoin.stages.report.facts": ("PhotoFacts", "Report"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
