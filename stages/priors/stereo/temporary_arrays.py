"""Temporary arrays of stereo in the store; deleted once the stage is committed."""

from __future__ import annotations

import zarr

from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

IN_PROGRESS = "in_progress"  # attribute of the priors in the store: the cache key of the unfinished work
TEMPORARY_ARRAYS = ("planes", "consistent")  # arrays of every photo


def delete_temporary_arrays(run: Run) -> None:
    """Delete the temporary arrays; after the commit, since a run that is killed before it resumes from them."""
    group = run.scene.get("priors")
    if not isinstance(group, zarr.Group) or IN_PROGRESS not in group.attrs:
        return
    for name in list(group.group_keys()):
        for kind in TEMPORARY_ARRAYS:
            arrays.delete_node(group, f"{name}/{kind}")
    del group.attrs[IN_PROGRESS]
