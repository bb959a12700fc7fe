"""What the demo generates, and what it says about it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult


class DemoConfig(StageConfig):
    """What is photographed, and how."""

    scene: Literal["landmark", "room", "town"] = "landmark"
    # of landmark and room: taken on one walk; below 30 SIFT may not tie them. A town has as many as its size needs
    n_photos: int = Field(40, ge=3, le=200)
    quarters: int = Field(16, ge=1, le=4096)  # of the town: its size, about 38 m by 38 m each
    width: int = Field(800, ge=32, le=4000)  # pixels
    height: int = Field(600, ge=32, le=4000)  # pixels
    grain: float = Field(0.0, ge=0, lt=0.2)  # deviation of the sensor's noise in display values, which go from 0 to 1
    # of the room: turned about z, so that its axes are not those of the world
    turn_deg: float = Field(0.0, ge=-180, le=180)
    # of the landmark: walls of whitewash instead of stone and brick, nothing on them to match
    plain: bool = False
    # of the landmark: share of a picture that people cover, as far as they reach into it; None: a few in a third of the
    # photos
    crowd: float | None = Field(None, ge=0, le=1)
    exposure: tuple[float, float] = (0.6, 1.35)  # each photo's, between these factors
    tint: float = Field(0.06, ge=0, lt=1)  # and up to so much more or less of each channel
    gamma: float = Field(1.0, ge=1, le=3)  # display values to a power between this and its inverse
    look_up_deg: float = Field(0.0, ge=-45, le=45)  # of the landmark: every camera turned up, more sky


# photos as strangers take them
WILD_SETTINGS: dict[str, Any] = {"crowd": 0.75, "exposure": (0.5, 2.0), "tint": 0.2, "gamma": 1.25, "look_up_deg": 6.0}
# one person's photos indoors, minutes apart
ROOM_SETTINGS: dict[str, Any] = {"scene": "room", "exposure": (0.8, 1.2), "tint": 0.03, "grain": 0.006}
# one drone's photos within an hour, at one exposure
TOWN_SETTINGS: dict[str, Any] = {"scene": "town", "exposure": (0.9, 1.15), "tint": 0.02, "grain": 0.004}


class DemoTruth(StageResult):
    """Where the collection and its truth lie, and the facts a score needs. World frame: metres, z up."""

    photos: str  # folder of the photos
    mesh: str  # PLY: the surface that at least two cameras see; the truth for recall
    full_mesh: str  # PLY: the whole surface in the region, seen or not
    cameras: str  # transforms.json of the photos (OpenGL camera axes, pinhole, no distortion)
    masks: str | None = None  # folder of masks of the photos with people: dark where they stand
    diagonal_m: float  # diagonal of the bounding box of ``mesh``
    region_low_m: tuple[float, float, float]  # box of what is judged; what lies beyond is backdrop and has no truth
    region_high_m: tuple[float, float, float]
    focal_px: float  # of every photo
    n_photos: int
    n_photos_with_people: int
    people_share: float  # of the pictures, in the mean, in which a ray meets one of them
    wall_yaws_deg: tuple[float, ...] = ()  # of the room's walls: their normals, from x to y, in [0, 180); z is up
    seed: int
