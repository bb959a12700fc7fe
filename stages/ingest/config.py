"""What a user may turn in ingest, and what it returns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.reasons import Reason


class IngestConfig(StageConfig):
    """Which photos are taken, and where their masks lie."""

    min_side_px: int = Field(128, ge=1, le=100_000)  # pixels; photos with a shorter side are left out: too few features
    max_megapixels: float = Field(300.0, gt=0, le=300.0)  # larger files are taken for decompression bombs
    min_contrast: float = Field(2.0, ge=0, le=100)  # grey levels (standard deviation); below it a photo is blank
    max_aspect: float = Field(2.5, ge=1)  # long side / short side; what is longer is a panorama, unless most photos are
    min_sharpness: float = Field(
        0.35, ge=0, le=1
    )  # of the median photo's; blurred photos below it are left out, 0: none
    near_duplicates: Literal["drop", "keep"] = "drop"  # one picture saved in several ways, or frames of a still camera
    max_frames: int = Field(300, ge=2, le=100_000)  # taken of all clips together; more motion than that: wider steps
    masks: str = "auto"  # "auto": folders named masks or mask inside or beside the photos; "none"; or a folder
    depth: str | None = None  # folder of the photos' depth maps by a sensor; None: there are none
    depth_unit_m: float | None = Field(None, gt=0, le=1000)  # metres per unit of their files; None: told by the values
    depth_camera: str | None = None  # JSON of the camera they were taken with, where that is not the photos' own


class ClipResult(StageResult):
    """What a clip gave. Times are in seconds from its first frame."""

    name: str
    seconds: float  # to the last frame that can be decoded
    frames_per_s: float  # as its header says; 0 where it does not
    n_frames: int  # that can be decoded
    n_taken: int
    blurred_s: list[tuple[float, float]]  # stretches without a sharp frame: none was taken
    still_s: list[tuple[float, float]]  # stretches without motion: one frame was taken
    cut_off: str  # that the file breaks off, "" where it does not


class IngestResult(StageResult):
    """What was found, in numbers."""

    n_files: int  # clips are one file each
    n_used: int  # photos, and frames of clips
    n_frames: int  # of them frames of clips
    n_duplicates: int
    n_near_duplicates: int
    n_unreadable: int
    n_masks: int
    n_depths: int  # photos with a depth map
    depth_unit_m: float | None  # of the depth maps' files
    n_borders: int  # photos with a frame, which is ignored
    n_with_focal: int
    n_with_gps: int
    n_groups: int  # of cameras: photos of one group may share intrinsics
    megapixels: float  # of all used photos together
    max_side_px: int  # longest side of any used photo
    clips: list[ClipResult]  # that gave frames
    reasons: dict[Reason, int]  # why not used -> how many files and frames
    contents: str  # hash of names and sizes of all files found, masks included
