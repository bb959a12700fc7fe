"""Configuration and result of the priors stage."""

from __future__ import annotations

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult


class PriorsConfig(StageConfig):
    """Settings of dense stereo, planes of textureless surfaces, and labels of sky and transient objects."""

    stereo_edge_px: int = Field(1024, ge=0, le=4000)
    """Long edge of the finest depth maps, pixels; 0 leaves stereo out."""
    sources: int = Field(8, ge=2, le=12)
    """Photos that each photo is matched with."""
    max_cost: float = Field(0.8, gt=0, le=1)
    """Largest matching cost 1 − NCC of a depth that is kept."""
    min_support: float = Field(0.5, ge=0, le=4)
    """Least support of a depth that is kept: photos that confirm the surface around it, on average, 3 at most,
    plus its smoothness, minus 0.1 for each photo that sees through it."""
    planes: bool = True
    """Depth of textureless walls, floors and ceilings from planes along the Manhattan frame, where there is one."""
    sky: bool = True
    """Label sky in the photos: it gets no depth and no surface."""
    semantic_model: str | None = None
    """Network of ADE20K's 150 classes that labels sky and transient objects instead: an ONNX or TorchScript file."""


class PriorsResult(StageResult):
    """Statistics of depth maps, planes and sky."""

    n_depth_maps: int
    n_sensor_maps: int = 0  # of these, by a depth sensor
    consistent_share: float  # of all pixels of the depth maps
    median_consistent_views: float  # median number of other photos that confirm a depth
    edge_px: int
    n_planes: int = 0  # of the scene, for textureless surfaces
    planar_share: float = 0.0  # of the pixels of the depth maps, with a depth by these planes only
    sky_photos: int  # photos with sky
    sky_share: float  # of the pixels of those photos, on average
    seconds: dict[str, float]
