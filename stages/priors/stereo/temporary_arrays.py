"""What stereo keeps in the store while it works, and which work it is of: gone once the stage is committed."""

from __future__ import annotations

import zarr

from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

IN_PROGRESS = "in_progress"  # attribute of the priors in the store: the key of the work that is going on there
TEMPORARY_ARRAYS = ("planes", "consistent")  # arrays of every photo


def delete_temporary_arrays(run: Run) -> None:
    """Leave nothing of the work but its results. Not before the commit: killed in between, all would be done again."""
    group = run.scene.get("priors")
    if not isinstance(group, zarr.Group) or IN_PROGRESS not in group.attrs:
        return
    for name in list(group.group_keys()):
        for kind in TEMPORARY_ARRAYS:
            arrays.delete_node(group, f"{name}/{kind}")
    del group.attrs[IN_PROGRESS]
