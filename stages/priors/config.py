"""Configuration and result of the priors stage."""

from __future__ import annotations

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult

VERSION = 12
NEEDS = ("pose",)


class PriorsConfig(StageConfig):
    """Dense stereo: how finely photos are compared, and which depths are believed; and sky and passers-by."""

    # long edge of the finest depth maps, pixels, 64..4000; 0 leaves stereo out
    stereo_edge_px: int = Field(1024, ge=0, le=4000)
    # photos each photo is compared with, 2..12
    sources: int = Field(8, ge=2, le=12)
    # depths whose 1 − NCC is above this are not believed, 0..1
    max_cost: float = Field(0.8, gt=0, le=1)
    # a depth is believed above this: witnesses that what lies around it on the same surface has in the mean, 3 at most,
    # and how smooth that is, 0..1, less 0.1 for each photo that sees through; 0..4
    min_support: float = Field(0.5, ge=0, le=4)
    # depth of bare walls, floors and ceilings, as planes along the frame of the walls, where there is one
    planes: bool = True
    # look for sky in the photos: it has no depth, no surface, and nothing stands before it
    sky: bool = True
    # a network of ADE20K's 150 classes that labels sky and passers-by in its stead: an ONNX or TorchScript file
    semantic_model: str | None = None


class PriorsResult(StageResult):
    """What stereo gave, and how much sky there is."""

    n_depth_maps: int
    n_sensor_maps: int = 0  # of them by a sensor
    consistent_share: float  # of all pixels of the depth maps
    median_consistent_views: float  # other photos that agree with a believed depth
    edge_px: int
    n_planes: int = 0  # of the scene, that bare surfaces may lie on
    planar_share: float = 0.0  # of the pixels of the depth maps, that only these planes tell
    sky_photos: int  # photos with sky
    sky_share: float  # of the pixels of those photos, in the mean
    seconds: dict[str, float]
