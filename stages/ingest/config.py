"""Settings of ingest, and its result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.reasons import Reason


class IngestConfig(StageConfig):
    """Which files become photos, and where their masks and depth maps are."""

    min_side_px: int = Field(
        128, ge=1, le=100_000
    )  # pixels; photos with a shorter side are left out, as they have too few features
    max_megapixels: float = Field(300.0, gt=0, le=300.0)  # larger files are not decoded: decompression bombs
    min_contrast: float = Field(2.0, ge=0, le=100)  # gray levels (standard deviation); photos below it are blank
    max_aspect: float = Field(2.5, ge=1)  # long side / short side; longer photos are panoramas, unless most photos are
    # times the sharpness of the median photo; blurred photos below it are left out, with 0 none are
    min_sharpness: float = Field(0.35, ge=0, le=1)
    near_duplicates: Literal["drop", "keep"] = "drop"  # photos saved in several ways, and frames of a still camera
    max_frames: int = Field(300, ge=2, le=100_000)  # of all clips together; more motion means fewer frames per motion
    masks: str = "auto"  # "auto": folders named masks or mask inside or beside the photos; "none"; or a folder
    depth: str | None = None  # folder of depth maps that a sensor took with the photos; None: there are none
    depth_unit_m: float | None = Field(
        None, gt=0, le=1000
    )  # metres per unit of their files; None: estimated from the values
    depth_camera: str | None = None  # JSON of the depth camera, where it is not the photos' camera


class ClipResult(StageResult):
    """Frames taken of one clip. Times are in seconds from its first frame."""

    name: str
    duration_s: float  # to the last frame that can be decoded
    frames_per_s: float  # from its header; 0 where it has none
    n_frames: int  # that can be decoded
    n_taken: int
    blurred_s: list[tuple[float, float]]  # spans without a sharp frame: none was taken
    still_s: list[tuple[float, float]]  # spans without motion: one frame was taken
    cut_off: str  # how much of a truncated file there is; "" for a complete one


class IngestResult(StageResult):
    """The photo table in numbers."""

    n_files: int  # clips are one file each
    n_used: int  # photos, and frames of clips
    n_frames: int  # frames of clips among them
    n_duplicates: int
    n_near_duplicates: int
    n_unreadable: int
    n_masks: int
    n_depths: int  # photos with a depth map
    depth_unit_m: float | None  # of the depth maps' files
    n_borders: int  # photos with a border to ignore
    n_with_focal: int
    n_with_gps: int
    n_groups: int  # camera groups; photos of one may share intrinsics
    megapixels: float  # of all used photos together
    max_side_px: int  # longest side of any used photo
    clips: list[ClipResult]  # that gave frames
    reasons: dict[Reason, int]  # why not used -> how many files and frames
    contents: str  # hash of names and sizes of all files found, masks included
