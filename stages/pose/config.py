"""Configuration and result of the pose stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult

VERSION = 7
NEEDS = ("ingest",)


class PoseConfig(StageConfig):
    """How photos are posed. Defaults suit anything from ten photos to a few thousand."""

    # cameras given instead of estimated: a COLMAP model folder or a transforms.json; None estimates them
    given: str | None = None
    # features are found at this long edge at most, pixels, 256..16000
    max_edge_px: int = Field(3200, ge=256, le=16000)
    # SIFT keypoints kept per photo, 256..65536 (a keypoint with two orientations counts twice)
    max_features: int = Field(8192, ge=256, le=65536)
    # up to so many photos every pair is matched; above, the likely ones; photos, 2..5000
    exhaustive_max_photos: int = Field(300, ge=2, le=5000)
    # above that number: photos near by GPS that each is matched with; by looks at most twice as many; photos, 2..500
    neighbours: int = Field(30, ge=2, le=500)
    # "auto": incremental up to 60 photos, above global; the other one too where the gate is not content
    mapper: Literal["auto", "global", "incremental"] = "auto"
    # a photo with fewer observed points is not registered; points, 3..1000
    min_points: int = Field(15, ge=3, le=1000)
    # refine the principal point (and a second radial term) of cameras where the data supports it
    refine_intrinsics: bool = True
    # long edge of the undistorted photos that training reads, pixels, 64..16000
    photo_max_edge_px: int = Field(1600, ge=64, le=16000)
    # threads for features, matching, mapping and undistortion; 0 takes every core
    threads: int = Field(0, ge=0, le=1024)


class ComponentSummary(StageResult):
    """One connected part of the collection: how much of it was registered."""

    n_photos: int
    n_points: int


class PoseResult(StageResult):
    """What pose measured; reprojection errors in pixels of the upright photos, over the component in use."""

    n_photos: int  # photos given to the stage
    n_registered: int  # photos of the component in use
    n_components: int
    components: list[ComponentSummary]  # the largest, which is the one in use, first
    n_points: int
    mean_reprojection_px: float
    median_reprojection_px: float
    median_track_length: float
    n_pairs: int  # pairs of photos with verified matches
    n_masks: int  # photos whose mask was given to feature extraction
    mapper: str  # "global", "incremental" or "given"
    refined_cameras: int  # cameras whose principal point was moved
    georeferenced: bool  # world is metres, east north up
    gravity_confidence: float  # 0..1; z of the world is up with this confidence
    n_depths: int = 0  # photos whose sensor depth is used
    metric: bool = False  # world is metres, by GPS or by sensor depth
    wall_directions: int  # directions in which walls stand; 0 where no frame of walls is trusted
    wall_confidence: float  # 0..1
    warnings: list[str]
