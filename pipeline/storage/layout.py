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
    ("priors*", "priors"),
    ("blocks/*/photo_*", "partition"),
    ("blocks/*/*", "train"),
    ("blocks*", "partition"),
    ("surface*", "fuse"),
    ("renderings*", None),
    ("*", "pose"),
)
# Written by commands beside the stages, and logs: uploaded at the end of each command, never read by a stage.
SIDECARS = ("evaluation.json", "tables/evaluation*.parquet", "views/*", "films/*", "exports/*", "logs/*", "report.*")
COLMAP_IMAGES = "work/pose/images"  # links to photos lie here, made anew by every attempt
PARTIAL_PATTERN = "*.partial"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_relative_name(name: object) -> str:
    """The name of a file in a run, or of a photo; ValueError where a path made of it would lead out of its folder."""
    if not isinstance(name, str) or not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} leads out of its folder")
    return name


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


class DamagedError(QuoinError):
    """Something in a run is not what ``stage`` left there (None: a command, which makes it again)."""

    def __init__(self, what: str, *, where: object = None, hint: str | None = None, stage: str | None = None) -> None:
        super().__init__(what, where=where, hint=hint)
        self.stage = stage


def damaged_file_error(name: str, what: str) -> DamagedError:
    """The error for a damaged file of a run, ``name`` relative to it: what is wrong, and how to make it again."""
    if name.startswith("work/"):  # of unfinished work; that of blocks is training's
        stage = name.split("/")[1]
        return _damage_error(name, what, "train" if stage == "blocks" else stage)
    stages = (stage for stage, globs in OUTPUTS.items() if any(fnmatchcase(name, p.format(part="*")) for p in globs))
    return _damage_error(name, what, next(stages, "").rstrip("/") or None)


def damaged_array_error(name: str, what: str) -> DamagedError:
    """The error for a damaged array or group of scene.zarr, or a chunk of an array."""
    return _damage_error(name, what, next(stage for pattern, stage in ARRAYS if fnmatchcase(name, pattern)))


def damaged_result_error(stage: str, what: str) -> DamagedError:
    """The error for a manifest in run.json that does not hold what its ``stage`` writes there."""
    return _damage_error("run.json", f"what it says of {stage} cannot be read ({what})", stage.partition("/")[0])


def _damage_error(name: str, what: str, stage: str | None) -> DamagedError:
    hint = f"make it again with quoin resume --force {stage}" if stage else "run the command again"
    return DamagedError(f"The run is damaged: {what}", where=name, hint=hint, stage=stage)
