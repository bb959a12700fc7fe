"""What decides, beside photos and settings, whether poses must be found again."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import digest
from pipeline.run import Run
from stages.pose.config import PoseConfig


def inputs(run: Run, config: PoseConfig) -> str:
    """What pose reads outside the run: the files of given cameras."""
    del run
    return fingerprint(config.given)


def fingerprint(given: str | None) -> str:
    """Hash of the files that give the cameras, so that a changed file redoes the stage; "" where none are given."""
    if given is None:
        return ""
    path = Path(given)
    files = sorted(p for p in path.rglob("*") if p.suffix in (".bin", ".txt", ".json")) if path.is_dir() else [path]
    return digest([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()])
