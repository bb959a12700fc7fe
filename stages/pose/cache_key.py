"""What decides, beside photos and settings, whether poses must be found again."""

from __future__ import annotations

from pathlib import Path

from quoin.pipeline.core.config import digest
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.config import PoseConfig

TRANSFORMS = "transforms.json"
MODEL_FOLDERS = (".", "sparse/0", "sparse", "0")  # of a folder that is given, where COLMAP's model may lie
TABLES = ("cameras", "images", "points3D", "rigs", "frames")
ENDINGS = (".bin", ".txt")


def inputs(run: Run, config: PoseConfig) -> str:
    """What pose reads outside the run: the files of given cameras."""
    del run
    return fingerprint(config.given)


def fingerprint(given: str | None) -> str:
    """Hash of the files that give the cameras, so that a changed file redoes the stage; "" where none are given."""
    if given is None:
        return ""
    files = [path for path in files_of(Path(given)) if path.is_file()]
    return digest([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def files_of(given: Path) -> list[Path]:
    """The files that given cameras are read from: a transforms.json, or those of a COLMAP model; those that may be."""
    if given.is_file():
        return [given]
    names = [f"{inside}/{table}{end}" for inside in MODEL_FOLDERS for table in TABLES for end in ENDINGS]
    return [given / name for name in (TRANSFORMS, *names)]
