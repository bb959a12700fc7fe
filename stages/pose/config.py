"""Configuration and result of the pose stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult


class PoseConfig(StageConfig):
    """Settings of the pose stage. Defaults suit anything from ten photos to a few thousand."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"given": "known_poses", "neighbours": "neighbors"}

    known_poses: str | None = None
    """Path of a COLMAP model folder or a transforms.json whose poses and cameras are kept; None estimates them."""
    refine_known_poses: bool = True
    """Correct known poses that do not fit the photos exactly (those of a phone's tracking); cameras are kept."""
    max_edge_px: int = Field(3200, ge=256, le=16000)
    """Long edge of the photos in which features are found, at most, pixels."""
    max_features: int = Field(8192, ge=256, le=65536)
    """SIFT keypoints kept per photo (a keypoint with two orientations counts twice)."""
    exhaustive_max_photos: int = Field(300, ge=2, le=5000)
    """Photos up to which every pair is matched; of more photos, the likely pairs."""
    neighbors: int = Field(30, ge=2, le=500)
    """Photos nearest by GPS that each of more photos is matched with, and at most twice as many by similarity."""
    mapper: Literal["auto", "global", "incremental"] = "auto"
    """Mapper of COLMAP; auto: incremental up to 60 photos, global above, and the other one where the first result is
    not good enough."""
    min_points: int = Field(15, ge=3, le=1000)
    """Points that a photo must observe to count as registered."""
    refine_intrinsics: bool = True
    """Refine the principal point of a camera, and split cameras wrongly shared, where the photos support it."""
    photo_max_edge_px: int = Field(1600, ge=64, le=16000)
    """Long edge of the undistorted photos that training reads, pixels."""
    threads: int = Field(0, ge=0, le=1024)
    """Threads for features, matching, mapping and undistortion; 0 takes every core."""


class ComponentSummary(StageResult):
    """Size of one component: photos that are registered together, and their points."""

    n_photos: int
    n_points: int


class PoseResult(StageResult):
    """Result of the pose stage; reprojection errors in pixels of the upright photos, over the component in use."""

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
    mapper: str  # "global", "incremental" or "known_poses"
    n_refined_cameras: int  # cameras whose principal point was moved
    is_georeferenced: bool  # the world frame is meters east, north, up, by GPS
    gravity_confidence: float  # 0..1, that z of the world frame is up
    n_depths: int = 0  # photos whose sensor depth is used
    is_metric: bool = False  # the world frame is in meters, by GPS or by sensor depth
    n_wall_directions: int  # directions of walls; 0 where none are trusted
    wall_confidence: float  # 0..1
    warnings: list[str]
