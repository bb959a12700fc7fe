"""Settings of ingest, and its result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.reasons import Reason


class IngestConfig(StageConfig):
    """Which files become photos, and where their masks and depth maps are."""

    min_side_px: int = Field(128, ge=1, le=100_000)
    """Shorter side of a photo, pixels, below which it is left out: it has too few features."""
    max_megapixels: float = Field(300.0, gt=0, le=300.0)
    """Size of a file, megapixels, above which it is not decoded (decompression bombs)."""
    min_contrast: float = Field(2.0, ge=0, le=100)
    """Contrast of a photo, gray levels (standard deviation), below which it is left out as blank."""
    max_aspect: float = Field(2.5, ge=1)
    """Long side of a photo over its short side, above which it is left out as a panorama, unless most photos are so."""
    min_sharpness: float = Field(0.35, ge=0, le=1)
    """Sharpness of a photo, times that of the median photo, below which it is left out as blurred; 0: none is."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """What becomes of photos saved in several ways, and of frames of a still camera."""
    max_frames: int = Field(300, ge=2, le=100_000)
    """Frames taken of all clips together, at most; more motion means fewer frames per motion."""
    masks: str = "auto"
    """Masks: auto finds folders named masks or mask inside or beside the photos, else takes what a transforms.json of
    pose.known_poses names; none; or the path of a folder."""
    depth: str | None = None
    """Folder of depth maps that a sensor took with the photos; None: there are none."""
    depth_unit_m: float | None = Field(None, gt=0, le=1000)
    """Unit of the depth maps' values in meters; None estimates it from the values."""
    depth_camera: str | None = None
    """JSON file of the depth camera, where it is not the photos' camera."""


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
    is_interlaced: bool = False  # one field of each frame is used


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
    contents: str  # hash of names and sizes of all files found, and of what photos, clips, masks and depth maps hold
