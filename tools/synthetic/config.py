"""Settings of a synthetic photo collection, and the record of its truth."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult


class SyntheticConfig(StageConfig):
    """What is photographed, and how."""

    scene: Literal["landmark", "room", "town"] = "landmark"
    """Scene: a landmark from all around, a furnished room, or a town from the air."""
    n_photos: int = Field(40, ge=3, le=200)
    """Of landmark and room, taken on one walk; with fewer than 30 SIFT may not match neighbours. Of a town: by its
    size."""
    quarters: int = Field(16, ge=1, le=4096)
    """Size of the town: quarters of about 38 m by 38 m."""
    width: int = Field(800, ge=32, le=4000)
    """Pixels."""
    height: int = Field(600, ge=32, le=4000)
    """Pixels."""
    noise_std: float = Field(0.0, ge=0, lt=0.2)
    """Of the sensor, standard deviation in display values of 0..1."""
    yaw_deg: float = Field(0.0, ge=-180, le=180)
    """Of the room: turned about z, away from the axes of the world."""
    textureless_walls: bool = False
    """Of the landmark: whitewash instead of stone and brick, without features to match."""
    crowd: float | None = Field(None, ge=0, le=1)
    """Of the landmark: share of a picture that people cover, as far as there is room for them; None: a few people in
    a third of the photos."""
    exposure: tuple[float, float] = (0.6, 1.35)
    """Range of the factor that a photo's light is multiplied by."""
    tint: float = Field(0.06, ge=0, lt=1)
    """Each channel of a photo is brighter or darker by up to this share."""
    gamma: float = Field(1.0, ge=1, le=3)
    """Display values are raised to a power between this and its inverse."""
    pitch_deg: float = Field(0.0, ge=-45, le=45)
    """Of the landmark: every camera is turned up by this, to more sky."""


# Photos as strangers take them.
WILD_SETTINGS: dict[str, Any] = {"crowd": 0.75, "exposure": (0.5, 2.0), "tint": 0.2, "gamma": 1.25, "pitch_deg": 6.0}
# One person's photos indoors, minutes apart.
ROOM_SETTINGS: dict[str, Any] = {"scene": "room", "exposure": (0.8, 1.2), "tint": 0.03, "noise_std": 0.006}
# One drone's photos within an hour, at one exposure.
TOWN_SETTINGS: dict[str, Any] = {"scene": "town", "exposure": (0.9, 1.15), "tint": 0.02, "noise_std": 0.004}


class SyntheticTruth(StageResult):
    """Paths of a collection and of its truth, and the numbers a score needs. World frame: metres, z up."""

    photos: str  # folder of the photos
    mesh: str  # PLY: the surface that at least two cameras see; the truth for recall
    full_mesh: str  # PLY: the whole surface in the region, visible or not
    cameras: str  # transforms.json of the photos (OpenGL camera axes, pinhole, no distortion)
    masks: str | None = None  # folder of masks of the photos with people: dark where they stand
    diagonal_m: float  # diagonal of the bounding box of ``mesh``
    region_low_m: tuple[float, float, float]  # box that is scored; what lies beyond is backdrop and has no truth
    region_high_m: tuple[float, float, float]
    focal_px: float  # of every photo
    n_photos: int
    n_photos_with_people: int
    people_share: float  # mean share of a picture in which a ray meets a person
    wall_yaws_deg: tuple[float, ...] = ()  # of the room's walls: their normals, from x to y, in [0, 180); z is up
    seed: int
