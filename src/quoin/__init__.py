"""Photo collections to surface meshes, block by block."""

from __future__ import annotations

import os

# Threads that wait for each other go to sleep soon: to spin for long costs a multiple on a machine that does other work
# as well (benchmarks/README.md). GNU OpenMP, as torch and pycolmap bring it, reads this when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
