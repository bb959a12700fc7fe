"""The summary that is printed when a run has finished."""

from __future__ import annotations

from typing import Any

from quoin.pipeline.core.formatting import format_duration
from quoin.pipeline.storage.run import Run


def print_summary(run: Run, *, quiet: bool = False) -> None:
    """Print counts, time and the paths of the results on standard output."""
    if quiet:
        return
    pose, train, fuse = (_result(run, stage) for stage in ("pose", "train", "fuse"))
    seconds = sum(m.seconds for name, m in run.record.manifests.items() if "/" not in name)
    facts = [
        f"{pose['n_registered']} of {pose['n_photos']} photos posed" if "n_registered" in pose else "",
        f"{len(train['blocks'])} block{'s' if len(train['blocks']) != 1 else ''} trained" if train else "",
        f"{fuse['n_faces']:,} faces" if "n_faces" in fuse else "",
        f"in {format_duration(seconds)}",
    ]
    print(", ".join(fact for fact in facts if fact))
    for name in ("mesh.ply", "mesh.glb", "report.html"):
        if run.file(name).exists():
            print(f"  {run.storage.public_path(name)}")


def _result(run: Run, stage: str) -> dict[str, Any]:
    manifest = run.manifest(stage)
    return manifest.result if manifest else {}
