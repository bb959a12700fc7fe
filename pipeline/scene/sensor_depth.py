"""Depth of a sensor beside the photos: its files, its camera, and its depth maps in the store.

A *depth map* holds depths along the camera's z axis; 0 = no value. Sensor depth is in metres until poses say how many
units of the world a metre is (``frame/``); whoever reads it from the store gets it in world units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.imaging.io import apply_orientation, exif_orientation, has_same_aspect, open_image
from quoin.pipeline.scene.posed_images import Posed, read_frame_attribute, without_photos
from quoin.pipeline.scene.priors import read_map_with_level
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

Array = np.ndarray

SIGMA_PER_M = 0.0015  # standard deviation of a depth of 1 m, in metres; it grows with the depth squared
NO_DEPTH_VALUE = 65535  # in files of whole numbers, beside 0

# -- files -----------------------------------------------------------------------------------------------------------


def load_depth(path: Path) -> tuple[Float[Array, "h w"], int, bool]:
    """Stored depths in the unit of the file (0 = no value), the file's own EXIF orientation, whether they are integers.

    Raises QuoinError, its ``what`` fit for a table, where the file cannot be read or holds a picture of depth.
    """
    with open_image(path) as image:
        image.load()
        whole = image.mode.startswith("I")
        if not whole and image.mode != "F":
            raise QuoinError(f"a picture of depth, not depth: {8 * len(image.getbands())} bits of colour", where=path)
        raw, orientation = np.asarray(image).astype(np.float64), exif_orientation(image)
    is_valid = np.isfinite(raw) & (raw > 0) & ~(whole & (raw == NO_DEPTH_VALUE))
    return np.where(is_valid, raw, 0.0), orientation, whole


def load_upright_depth(
    path: Path, size: tuple[int, int], orientation: int, unit_m: float, *, has_own_camera: bool = False
) -> Float[Array, "h w"]:
    """Depth in metres of a photo of upright ``size`` (width, height) and EXIF ``orientation``, at its own resolution.

    A map of the photo's stored shape is turned as the photo is, unless it carries an orientation of its own. Raises
    QuoinError where its shape is not the photo's; a map with a camera of its own may have any.
    """
    raw, turned, _ = load_depth(path)
    depth = apply_orientation(raw, turned) * unit_m
    if has_own_camera:
        return depth
    if orientation >= 5 and not has_same_aspect(depth.shape[::-1], size) and has_same_aspect(depth.shape, size):
        depth = apply_orientation(depth, orientation)
    if not has_same_aspect(depth.shape[::-1], size):
        have, want = (f"{width} x {height}" for width, height in (depth.shape[::-1], size))
        raise QuoinError(f"does not fit: {have} pixels, its photo has {want}", where=path)
    return depth


@dataclass(frozen=True)
class DepthCamera:
    """A depth sensor that looks from elsewhere: ``intrinsics`` fx fy cx cy of ``size`` (width, height) pixels, and the
    pose ``photo_from_depth`` [3, 4] in metres.
    """

    intrinsics: Float[Array, "4"]
    size: tuple[int, int]
    photo_from_depth: Float[Array, "3 4"]


def read_depth_camera(path: Path) -> DepthCamera:
    """A JSON file with fl_x, fl_y, cx, cy, w, h and photo_from_depth (rows of a 4 x 4 or 3 x 4 matrix, metres).

    Pixel (0, 0) is the corner of the first pixel. Without photo_from_depth both look from one place. QuoinError where
    it says something else.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        fx, fy, cx, cy, w, h = (float(data[key]) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"))
        pose = np.array(data.get("photo_from_depth", np.eye(4).tolist()), np.float64)
        numbers = np.array([fx, fy, cx, cy, w, h])
        good = pose.shape in ((4, 4), (3, 4)) and np.isfinite(pose).all() and np.isfinite(numbers).all()
        good = good and min(fx, fy, w, h) > 0 and np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() < 1e-2
    except OSError as error:
        raise QuoinError(
            f"Cannot read the depth camera: {error.strerror}", where=path, hint="name a JSON file"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise QuoinError(
            "The depth camera file is incomplete or invalid",
            where=path,
            hint="give fl_x, fl_y, cx, cy, w, h, and photo_from_depth, a rotation and translation in metres",
        )
    return DepthCamera(numbers[:4], (round(w), round(h)), pose[:3])


# -- depth maps (scene.zarr/photos/<index>/depth, by pose) -----------------------------------------------------------


@dataclass(frozen=True)
class SensorScale:
    """How many world units a metre of the sensor is, and where that is known from."""

    world_per_m: float
    provenance: str


@dataclass(frozen=True)
class SensorDepth:
    """Depth map [h, w] at pyramid ``level``, world units; a depth z is off by ``sigma_per_unit`` · z²."""

    depth: Float[Array, "h w"]
    level: int
    sigma_per_unit: float


def write_sensor_depth(run: Run, index: int, depth_m: Float[Array, "h w"], level: int) -> None:
    """Store sensor depth of posed photo ``index`` in its undistorted camera at pyramid ``level``."""
    arrays.write_array(run.scene, f"photos/{index:06d}/depth", depth_m.astype(np.float32), attrs={"level": level})


def read_sensor_depth(run: Run, index: int) -> SensorDepth | None:
    """Sensor depth of posed photo ``index``, or None where it has none."""
    found, scale = read_sensor_depth_m(run, index), read_sensor_scale(run)
    if found is None or scale is None:
        return None
    depth_m, level = found
    return SensorDepth(depth_m * np.float32(scale.world_per_m), level, SIGMA_PER_M / scale.world_per_m)


def read_sensor_depth_m(run: Run, index: int) -> tuple[Float[Array, "h w"], int] | None:
    """Sensor depth of posed photo ``index`` in metres of the sensor, and its pyramid level; None where it has none."""
    return read_map_with_level(run, f"photos/{index:06d}/depth")


def write_sensor_scale(run: Run, scale: SensorScale) -> None:
    """Store the sensor scale in frame/."""
    run.scene.require_group("frame").attrs["sensor_scale"] = vars(scale)


def read_sensor_scale(run: Run) -> SensorScale | None:
    """The scale of sensor depth, or None where there is none."""
    data = read_frame_attribute(run, "sensor_scale")
    with arrays.translate_damage("frame", "the scale of the sensor cannot be read"):
        return None if data is None else SensorScale(**data)


# -- points (scene.zarr/sensor, by pose) -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SensorPoints:
    """Some points that the sensor measured, in which photo each, and which photos see them; tracks as in Posed."""

    points_world: Float[Array, "p 3"]
    photo_index: Int[Array, "p"]
    track_offsets: Int[Array, "p+1"]
    track_photo: Int[Array, "t"]
    track_xy: Float[Array, "t 2"]


def write_sensor_points(run: Run, points: SensorPoints) -> None:
    """Store the points."""
    arrays.delete_node(run.scene, "sensor")
    for name, values in vars(points).items():
        arrays.write_array(run.scene, f"sensor/{name}", values)


def add_sensor_points(run: Run, posed: Posed, held_out: Int[Array, "h"]) -> Posed:
    """``posed`` with the sensor's points behind those of SfM: where surface is, and which photos show it.

    Photos held out have seen nothing (``scene.hide``), nor measured. The sensor's points are rougher than those of SfM,
    and no evidence of poses. Colours are unknown: gray.
    """
    if not arrays.exists(run.scene, "sensor"):
        return without_photos(posed, held_out)
    sensor_points = SensorPoints(
        **{name: arrays.read_array(run.scene, f"sensor/{name}") for name in SensorPoints.__annotations__}
    )
    kept = ~np.isin(sensor_points.photo_index, held_out)
    n, length = int(kept.sum()), np.diff(sensor_points.track_offsets)
    observed = np.repeat(kept, length)
    colors: UInt8[Array, "n 3"] = np.full((n, 3), 128, np.uint8)
    both = replace(
        posed,
        points_world=np.concatenate([posed.points_world, sensor_points.points_world[kept]]),
        point_errors_px=np.concatenate([posed.point_errors_px, np.ones(n)]),
        point_colors=np.concatenate([posed.point_colors, colors]),
        track_offsets=np.concatenate([posed.track_offsets, posed.track_offsets[-1] + np.cumsum(length[kept])]),
        track_photo=np.concatenate([posed.track_photo, sensor_points.track_photo[observed]]),
        track_xy=np.concatenate([posed.track_xy, sensor_points.track_xy[observed]]),
    )
    return without_photos(both, held_out)
