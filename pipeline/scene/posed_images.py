"""Posed photos, their points and tracks, and renderings in the store (scene.zarr). Read and written here only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.imaging.filters import build_pyramid
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.layout import check_relative_name
from quoin.pipeline.storage.run import Run

Array = np.ndarray

# -- posed photos, points, tracks (scene.zarr/poses, by pose) --------------------------------------------------------


@dataclass(frozen=True)
class Posed:
    """The posed photos of the component in use, index 0..N-1, and what SfM knows of the surface. World frame, float64.

    ``photo_ids`` [N] rows of the photo table; ``sizes`` [N, 2] width, height of the undistorted photo at level 0;
    ``intrinsics`` [N, 4] fx fy cx cy of it. Tracks in CSR form: point p was seen by photos
    ``track_photo[track_offsets[p]:track_offsets[p + 1]]`` (indices 0..N-1) at undistorted pixels ``track_xy``.
    """

    names: list[str]
    photo_ids: Int[Array, "n"]
    cam_from_world: Float[Array, "n 3 4"]
    intrinsics: Float[Array, "n 4"]
    sizes: Int[Array, "n 2"]
    points_world: Float[Array, "p 3"]
    point_errors_px: Float[Array, "p"]
    point_colors: UInt8[Array, "p 3"]
    track_offsets: Int[Array, "p+1"]
    track_photo: Int[Array, "t"]
    track_xy: Float[Array, "t 2"]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def track_point(self) -> Int[Array, "t"]:
        """Point index of every observation."""
        return np.repeat(np.arange(len(self.points_world)), np.diff(self.track_offsets))

    @property
    def track_lengths(self) -> Int[Array, "p"]:
        return np.diff(self.track_offsets)


def without_photos(posed: Posed, photos: Int[Array, "h"]) -> Posed:
    """``posed`` as if ``photos`` (indices) had seen nothing: without their tracks and points that under two others see.

    The photos keep their places and their poses.
    """
    if len(photos) == 0:
        return posed
    point = posed.track_point
    is_kept = ~np.isin(posed.track_photo, photos)
    length = np.bincount(point[is_kept], minlength=len(posed.points_world))
    kept = length >= 2
    is_kept &= kept[point]
    return replace(
        posed,
        points_world=posed.points_world[kept],
        point_errors_px=posed.point_errors_px[kept],
        point_colors=posed.point_colors[kept],
        track_offsets=np.concatenate([[0], np.cumsum(length[kept])]),
        track_photo=posed.track_photo[is_kept],
        track_xy=posed.track_xy[is_kept],
    )


_POSED_ARRAYS = [
    "photo_ids",
    "cam_from_world",
    "intrinsics",
    "sizes",
    "points_world",
    "point_errors_px",
    "point_colors",
    "track_offsets",
    "track_photo",
    "track_xy",
]


def write_posed(run: Run, posed: Posed) -> None:
    """Store posed photos, points and tracks."""
    arrays.delete_node(run.scene, "poses")
    for name in _POSED_ARRAYS:
        arrays.write_array(run.scene, f"poses/{name}", getattr(posed, name))
    run.scene["poses"].attrs["names"] = posed.names


def read_posed(run: Run) -> Posed:
    """The posed photos that the stage pose committed."""
    run.require("pose")
    values = {name: arrays.read_array(run.scene, f"poses/{name}") for name in _POSED_ARRAYS}
    attrs = arrays.read_attributes(run.scene, "poses")
    with arrays.translate_damage("poses", "the poses cannot be read"):
        posed = Posed(names=[check_relative_name(name) for name in attrs["names"]], **values)
        _check_lengths(posed)
    return posed


def _check_lengths(posed: Posed) -> None:
    """ValueError where arrays that belong together differ in length."""
    n_photos, n_points, n_seen = len(posed.names), len(posed.points_world), len(posed.track_photo)
    lengths = {
        n_photos: (posed.photo_ids, posed.cam_from_world, posed.intrinsics, posed.sizes),
        n_points: (posed.point_errors_px, posed.point_colors),
        n_points + 1: (posed.track_offsets,),
        n_seen: (posed.track_xy,),
    }
    if any(len(array) != length for length, group in lengths.items() for array in group):
        raise ValueError("their arrays differ in length")


def write_transform(run: Run, name: str, transform: Similarity) -> None:
    """Store a transform between frames, e.g. ``world_from_sfm``."""
    run.scene.require_group("frame").attrs[name] = transform.to_json()


def read_transform(run: Run, name: str) -> Similarity | None:
    """A stored transform between frames, or None."""
    data = read_frame_attribute(run, name)
    with arrays.translate_damage("frame", f"{name} cannot be read"):
        return None if data is None else Similarity.from_json(data)


def read_frame_attribute(run: Run, name: str) -> dict[str, Any] | None:
    """The attribute ``name`` of the group frame/, or None."""
    data = arrays.read_attributes(run.scene, "frame").get(name)
    return data if isinstance(data, dict) else None


# -- undistorted photos (scene.zarr/photos/<index>, by pose) ---------------------------------------------------------

PYRAMID_LEVELS = 4  # level k is 2^k times smaller, rounded down


def write_photo(run: Run, index: int, levels: list[UInt8[Array, "_ _ 3"]], mask: UInt8[Array, "h w"]) -> None:
    """Undistorted pyramid of one posed photo (level 0 first) and its level-0 mask: 255 use, 0 ignore."""
    for level, rgb in enumerate(levels):
        arrays.write_array(run.scene, f"photos/{index:06d}/rgb{level}", rgb)
    arrays.write_array(run.scene, f"photos/{index:06d}/mask", mask)


def read_photo(run: Run, index: int, level: int = 0) -> UInt8[Array, "h w 3"]:
    """Undistorted photo ``index`` at a pyramid level; levels beyond the stored ones are made from the last."""
    stored = min(level, PYRAMID_LEVELS - 1)
    return build_pyramid(arrays.read_array(run.scene, f"photos/{index:06d}/rgb{stored}"), level - stored + 1)[-1]


def read_mask(run: Run, index: int) -> UInt8[Array, "h w"]:
    """Level-0 mask of posed photo ``index``: 255 use, 0 ignore (user masks and undistortion borders together)."""
    return arrays.read_array(run.scene, f"photos/{index:06d}/mask")


# -- what held-out photos should look like (scene.zarr/renderings, by render) -----------------------------------------


@dataclass(frozen=True)
class Rendering:
    """A rendering of the trained blocks by one camera.

    ``color`` in [0, 1] and may be beyond; ``normal`` unit, world frame, 0 where there is no surface; ``depth_m`` along
    the camera's z, 0 where there is no surface; ``opacity`` of all surfaces, in [0, 1].
    """

    color: Float[Array, "h w 3"]
    normal: Float[Array, "h w 3"]
    depth_m: Float[Array, "h w"]
    opacity: Float[Array, "h w"]


def write_rendering(run: Run, index: int, rendering: Rendering) -> None:
    """Store the rendering of posed photo ``index``."""
    for name, values in vars(rendering).items():
        kind = np.float32 if name == "depth_m" else np.float16
        arrays.write_array(run.scene, f"renderings/{index:06d}/{name}", values.astype(kind))


def read_rendering(run: Run, index: int) -> Rendering:
    """The stored rendering of posed photo ``index``."""
    names = ("color", "normal", "depth_m", "opacity")
    return Rendering(*(arrays.read_array(run.scene, f"renderings/{index:06d}/{n}").astype(np.float32) for n in names))
