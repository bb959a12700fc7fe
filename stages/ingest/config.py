"""What a user may turn in ingest, and what it returns."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import StageConfig, StageResult


class IngestConfig(StageConfig):
    """Which photos are taken, and where their masks lie."""

    min_side_px: int = Field(128, ge=1, le=100_000)  # pixels; photos with a shorter side are left out: too few features
    max_megapixels: float = Field(300.0, gt=0, le=300.0)  # larger files are taken for decompression bombs
    min_contrast: float = Field(2.0, ge=0, le=100)  # grey levels (standard deviation); below it a photo is blank
    masks: str = "auto"  # "auto": folders named masks or mask inside or beside the photos; "none"; or a folder


class IngestResult(StageResult):
    """What was found, in numbers."""

    n_files: int
    n_used: int
    n_duplicates: int
    n_unreadable: int
    n_masks: int
    n_with_focal: int
    n_with_gps: int
    n_groups: int  # of cameras: photos of one group may share intrinsics
    megapixels: float  # of all used photos together
    max_side_px: int  # longest side of any used photo
    reasons: dict[str, int]  # kind of reason -> files not used for it
    contents: str  # hash of names and sizes of all files found, masks included
