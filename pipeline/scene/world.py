"""What is known of the world frame: its unit, which way is up, and where on Earth its origin lies."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

Array = np.ndarray
Unit = Literal["m", "units"]

GEOREFERENCE_FILE = "georeference.json"  # beside the mesh
MIN_UP_CONFIDENCE = 0.4  # of gravity, 0..1, from which on its direction is told as known
MAX_Z_UP_DEG = 10.0  # between z and up, up to which z is called up


@dataclass(frozen=True)
class EarthOrigin:
    """Where on Earth the origin of the world lies (WGS 84), whose x is east, y north, z up, in meters."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float  # above the ellipsoid, as far as the photos' GPS tells
    residual_m: float  # median distance between camera centers and GPS
    n_photos: int  # that the origin rests on
    provenance: str = "EXIF GPS"

    def as_json(self) -> str:
        """georeference.json, which lies beside the mesh."""
        frame = "meters east (x), north (y) and up (z) of the origin, on the plane that touches the ellipsoid there"
        return json.dumps({"crs": "EPSG:4979", "frame": frame, "origin": asdict(self)}, indent=1) + "\n"


@dataclass(frozen=True)
class World:
    """The world frame: its unit ("units": of unknown length), the direction of up with its confidence, its origin."""

    unit: Unit = "units"
    up: Float[Array, "3"] | None = None
    up_confidence: float = 0.0
    origin: EarthOrigin | None = None

    def __str__(self) -> str:
        unit = "meters" if self.unit == "m" else "unit of unknown length (photos alone do not tell the scale)"
        return f"world frame; {unit}; {self._describe_up()}"

    def _describe_up(self) -> str:
        if self.up is None or self.up_confidence < MIN_UP_CONFIDENCE:
            return f"z may not be up (confidence {self.up_confidence:.2f})"
        if self.up[2] >= np.cos(np.radians(MAX_Z_UP_DEG)):
            return "z up"
        return "up is " + " ".join(f"{value:.2f}" for value in self.up)

    def length(self, value: float) -> str:
        """A length with its unit, to four digits."""
        return f"{value:.4g} {self.unit}"


def write_world(run: Run, world: World) -> None:
    """Keep what is known of the world frame in frame/ of the scene."""
    up = None if world.up is None else {"up_world": world.up.tolist(), "confidence": world.up_confidence}
    origin = asdict(world.origin) if world.origin else None
    run.scene.require_group("frame").attrs.update({"unit": world.unit, "gravity": up, "enu_origin": origin})


def read_world(run: Run) -> World:
    """What the pose stage found out about the world frame; nothing is known where it kept nothing."""
    attrs = arrays.read_attributes(run.scene, "frame")
    gravity, origin = attrs.get("gravity"), attrs.get("enu_origin")
    with arrays.translate_damage("frame", "what is known of the world cannot be read"):
        return World(
            attrs.get("unit", "units"),
            np.array(gravity["up_world"], np.float64) if gravity else None,
            float(gravity["confidence"]) if gravity else 0.0,
            EarthOrigin(**origin) if origin else None,
        )
