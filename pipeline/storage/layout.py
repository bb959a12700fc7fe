"""Which stage leaves which files and arrays in a run: their names, checksums, and the error for a damaged one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pydantic

from quoin.pipeline.core.errors import QuoinError

# By stage, patterns relative to the run; {part} is what follows the slash of "train/b0". * matches slashes too.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "ingest": ("tables/photos.parquet", "frames/*"),
    "pose": ("tables/poses.parquet", "tables/pairs.parquet", "sparse/*"),
    "train/": ("tables/train_{part}.parquet", "tables/cameras_{part}.parquet", "work/blocks/{part}/preview/*.jpg"),
    "fuse": ("mesh.ply", "mesh.glb", "georeference.json"),
    "report": ("report.html", "report.json"),
}
# Arrays of scene.zarr, by the first pattern that fits. Those of no stage belong to a command, which makes them again.
ARRAYS = (
    ("priors/*", "priors"),
    ("blocks/*/photo_*", "partition"),
    ("blocks/*", "train"),
    ("surface/*", "fuse"),
    ("renderings/*", None),
    ("*", "pose"),
)
# Written by commands beside the stages, and logs: uploaded at the end of each command, never read by a stage.
SIDECARS = ("evaluation.json", "tables/evaluation*.parquet", "views/*", "films/*", "exports/*", "logs/*", "report.*")
PARTIAL_PATTERN = "*.partial"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileEntry(pydantic.BaseModel):
    """Checksum and size of a file that a committed stage left."""

    sha256: str
    n_bytes: int


def output_patterns(stage: str) -> tuple[str, ...]:
    """Patterns of the files that ``stage`` leaves."""
    name, slash, part = stage.partition("/")
    return tuple(pattern.format(part=part) for pattern in OUTPUTS.get(name + slash, ()))


def matching_files(folder: Path, globs: tuple[str, ...]) -> Iterator[str]:
    """Names, relative to ``folder``, of the files there that match one of the patterns, in order."""
    tops = sorted({pattern.split("/")[0] for pattern in globs})
    for top in (path for part in tops for path in sorted(folder.glob(part))):
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and any(fnmatchcase(name, p) for p in globs) and not fnmatchcase(name, PARTIAL_PATTERN):
                yield name


def damaged_file_error(name: str, what: str) -> QuoinError:
    """The QuoinError for a damaged file of a run, ``name`` relative to it: what is wrong, and how to make it again."""
    stages = [stage.rstrip("/") for stage in OUTPUTS if any(fnmatchcase(name, p) for p in output_patterns(f"{stage}*"))]
    return _damage_error(name, what, stages[0] if stages else None)


def damaged_array_error(name: str, what: str) -> QuoinError:
    """The QuoinError for a damaged array of scene.zarr, or a chunk of one."""
    return _damage_error(name, what, next(stage for pattern, stage in ARRAYS if fnmatchcase(name, pattern)))


def _damage_error(name: str, what: str, stage: str | None) -> QuoinError:
    hint = f"make it again with quoin resume --force {stage}" if stage else "run the command again"
    return QuoinError(f"The run is damaged: {what}", where=name, hint=hint)
