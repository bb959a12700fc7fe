"""What stereo keeps in the store while it works, and which work it is of: gone once the stage is committed."""

from __future__ import annotations

import zarr

from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

HALF_DONE = "half_done"  # attribute of the priors in the store: the key of the work that is going on there
WORKING = ("planes", "believed")  # arrays of every photo


def forget_work(run: Run) -> None:
    """Leave nothing of the work but its results. Not before the commit: killed in between, all would be done again."""
    group = run.scene.get("priors")
    if not isinstance(group, zarr.Group) or HALF_DONE not in group.attrs:
        return
    for name in list(group.group_keys()):
        for kind in WORKING:
            arrays.delete(group, f"{name}/{kind}")
    del group.attrs[HALF_DONE]
