"""What decides, beside photos and settings, whether poses must be found again."""

from __future__ import annotations

from pathlib import Path

from quoin.pipeline.core.config import digest
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.config import PoseConfig

TRANSFORMS_JSON = "transforms.json"
MODEL_SUBFOLDERS = (".", "sparse/0", "sparse", "0")  # of a folder that is given, where COLMAP's model may lie
MODEL_FILE_STEMS = ("cameras", "images", "points3D", "rigs", "frames")
MODEL_FILE_SUFFIXES = (".bin", ".txt")


def pose_cache_inputs(run: Run, config: PoseConfig) -> str:
    """What pose reads outside the run: the files of given cameras."""
    del run
    return hash_given_files(config.given)


def hash_given_files(given_path: str | None) -> str:
    """Hash of the files that give the cameras, so that a changed file redoes the stage; "" where none are given."""
    if given_path is None:
        return ""
    files = [path for path in candidate_files(Path(given_path)) if path.is_file()]
    return digest([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def candidate_files(given_path: Path) -> list[Path]:
    """The files that given cameras are read from: a transforms.json, or those of a COLMAP model; those that may be."""
    if given_path.is_file():
        return [given_path]
    names = [
        f"{subfolder}/{table}{suffix}"
        for subfolder in MODEL_SUBFOLDERS
        for table in MODEL_FILE_STEMS
        for suffix in MODEL_FILE_SUFFIXES
    ]
    return [given_path / name for name in (TRANSFORMS_JSON, *names)]
