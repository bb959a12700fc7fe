"""What the demo generates, and what it says about it."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import StageConfig, StageResult


class DemoConfig(StageConfig):
    """Size of the generated photo collection."""

    n_photos: int = Field(40, ge=3, le=200)  # taken on the walk around the landmark; below 30 SIFT may not tie them
    width: int = Field(800, ge=32, le=4000)  # pixels
    height: int = Field(600, ge=32, le=4000)  # pixels
    plain: bool = False  # walls of whitewash instead of stone and brick: nothing on them to match


class DemoTruth(StageResult):
    """Where the collection and its truth lie, and the facts a score needs. World frame: metres, z up."""

    photos: str  # folder of the photos
    mesh: str  # PLY: the surface that at least two cameras see; the truth for recall
    full_mesh: str  # PLY: the whole surface in the region, seen or not
    cameras: str  # transforms.json of the photos (OpenGL camera axes, pinhole, no distortion)
    diagonal_m: float  # diagonal of the bounding box of ``mesh``
    region_low_m: tuple[float, float, float]  # box of the landmark; what lies beyond is backdrop and has no truth
    region_high_m: tuple[float, float, float]
    focal_px: float  # of every photo
    n_photos: int
    n_photos_with_people: int
    seed: int
