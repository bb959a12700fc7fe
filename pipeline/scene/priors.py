"""Exposures, depth maps, pixel labels and planes of the posed photos (``scene.zarr/priors``, by priors)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zarr
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.geometry.cameras import pixel_grid, unproject
from quoin.pipeline.imaging.filters import resample_to_level
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.layout import damaged_array_error
from quoin.pipeline.storage.run import Run

Array = np.ndarray

PLANES_ARRAY = "priors/planes"


def write_exposures(run: Run, gains: Float[Array, "n 3"]) -> None:
    """Store the exposure and tint of every posed photo: a factor per channel, about 1."""
    arrays.write_array(run.scene, "priors/exposures", gains.astype(np.float64))


def read_exposures(run: Run) -> Float[Array, "n 3"] | None:
    """Exposures of the posed photos, or None where they are not known."""
    return arrays.read_array(run.scene, "priors/exposures") if arrays.exists(run.scene, "priors/exposures") else None


def write_depth(
    run: Run, index: int, depth: Float[Array, "h w"], level: int, *, sigma_per_unit: float | None = None
) -> None:
    """Store the depth map of posed photo ``index`` at a pyramid level, world units along the camera's z; 0 = unknown.

    ``sigma_per_unit``: a depth z is off by that times z², as a sensor's is; None: by a share of z, as stereo's is.
    """
    attrs = {"level": level, "sigma_per_unit": sigma_per_unit}
    arrays.write_array(run.scene, f"priors/{index:06d}/depth", depth.astype(np.float32), attrs=attrs)


def write_hypotheses(
    run: Run, index: int, kind: str, planes: Float[Array, "n h w"], level: int, *, n_passes: int = 0
) -> None:
    """Store plane hypotheses of posed photo ``index``, which stereo works on.

    A plane is (w, a, b), see ``stages.priors.stereo.hypotheses``.

    ``n_passes`` is how many passes over the photos they have behind them.
    """
    attrs = {"level": level, "n_passes": n_passes}
    arrays.write_array(run.scene, f"priors/{index:06d}/{kind}", planes.astype(np.float32), attrs=attrs)


def read_hypotheses(run: Run, index: int, kind: str) -> tuple[Float[Array, "n h w"], int] | None:
    """Planes of a photo and their pyramid level, or None where it has none yet."""
    return read_map_with_level(run, f"priors/{index:06d}/{kind}")


def count_hypothesis_passes(run: Run, index: int, kind: str) -> int:
    """How many passes a photo's planes have behind them; 0 where it has none."""
    array = _complete_map(run, f"priors/{index:06d}/{kind}")
    return 0 if array is None else _int_attribute(array, "n_passes")


def read_depth(run: Run, index: int) -> tuple[Float[Array, "h w"], int] | None:
    """A photo's depth map and its pyramid level, or None where it has none."""
    return read_map_with_level(run, f"priors/{index:06d}/depth")


def has_depth(run: Run, index: int) -> bool:
    """Whether a photo has a depth map."""
    return _complete_map(run, f"priors/{index:06d}/depth") is not None


def read_depth_sigma(run: Run, index: int) -> float | None:
    """``sigma_per_unit`` of a photo's depth map; None where it is stereo's."""
    value = arrays.open_array(run.scene, f"priors/{index:06d}/depth").attrs.get("sigma_per_unit")
    return value if isinstance(value, float) else None


def write_labels(run: Run, index: int, labels: UInt8[Array, "h w"], level: int) -> None:
    """Store the labels of the pixels of posed photo ``index`` at ``level`` (values of ``pipeline.imaging.labels``)."""
    arrays.write_array(run.scene, f"priors/{index:06d}/labels", labels.astype(np.uint8), attrs={"level": level})


def read_labels(run: Run, index: int) -> tuple[UInt8[Array, "h w"], int] | None:
    """A photo's labels and their pyramid level, or None where it has none."""
    return read_map_with_level(run, f"priors/{index:06d}/labels")


def read_full_size_labels(run: Run, index: int, size: Int[Array, "2"]) -> UInt8[Array, "h w"]:
    """A photo's labels at level 0, of ``size`` (width, height); UNKNOWN where it has none."""
    return read_labels_at_level(run, index, 0, tuple(size[::-1].tolist()))


def read_labels_at_level(run: Run, index: int, level: int, shape: tuple[int, ...]) -> UInt8[Array, "r c"]:
    """A photo's labels at a pyramid level, of ``shape`` there; UNKNOWN where it has none."""
    stored = read_labels(run, index)
    return np.zeros(shape, np.uint8) if stored is None else resample_to_level(*stored, level, shape)


def read_map_with_level(run: Run, name: str) -> tuple[Array, int] | None:
    """A map in the store and its pyramid level, or None where it is not there."""
    array = _complete_map(run, name)
    return None if array is None else (arrays.read_values(array), _int_attribute(array, "level"))


def _complete_map(run: Run, name: str) -> zarr.Array | None:
    """The array of a map that was written to its end, which has a level; or None."""
    array = arrays.find_node(run.scene, name)
    return array if isinstance(array, zarr.Array) and "level" in array.attrs else None


def _int_attribute(array: zarr.Array, attribute: str) -> int:
    value = array.attrs.get(attribute)
    if not isinstance(value, int):
        raise damaged_array_error(array.path, f"its attribute {attribute} cannot be read")
    return value


@dataclass(frozen=True)
class PlaneIndexMap:
    """Index [h, w] of the plane that each pixel shows where its depth map has no value (-1: none); pyramid level."""

    plane_index: Int[Array, "h w"]
    level: int


def write_scene_planes(run: Run, normals: Float[Array, "k 3"], offsets: Float[Array, "k"]) -> None:
    """Store the planes n · x = offset of the world; unit normals point to the side they are seen from."""
    arrays.write_array(run.scene, PLANES_ARRAY, np.concatenate([normals, offsets[:, None]], axis=1).astype(np.float64))


def read_scene_planes(run: Run) -> Float[Array, "k 4"]:
    """Planes as rows (n, offset); no rows where priors did not look for them."""
    return arrays.read_array(run.scene, PLANES_ARRAY) if arrays.exists(run.scene, PLANES_ARRAY) else np.zeros((0, 4))


def write_plane_index(run: Run, index: int, plane_map: PlaneIndexMap) -> None:
    """Store the plane index map of posed photo ``index``."""
    values, name = plane_map.plane_index.astype(np.int32), f"priors/{index:06d}/plane_index"
    arrays.write_array(run.scene, name, values, attrs={"level": plane_map.level})


def read_plane_index(run: Run, index: int) -> PlaneIndexMap | None:
    """The plane index map of a posed photo, or None where it has none."""
    stored = read_map_with_level(run, f"priors/{index:06d}/plane_index")
    return None if stored is None else PlaneIndexMap(*stored)


def depth_from_planes(
    plane_index: Int[Array, "h w"],
    planes: Float[Array, "k 4"],
    cam_from_world: Float[Array, "3 4"],
    intrinsics: Float[Array, "4"],
) -> Float[Array, "h w"]:
    """Depth along the camera's z, 0 where a pixel shows no plane; ``intrinsics`` at the level of ``plane_index``.

    Planes and pose in any one frame, as the world or a block's.
    """
    flat = plane_index.ravel()
    rays = unproject(intrinsics, pixel_grid(*plane_index.shape[::-1]), np.ones(flat.size))
    plane = planes[np.maximum(flat, 0)] if len(planes) else np.zeros((flat.size, 4))
    normal = plane[:, :3] @ cam_from_world[:, :3].T
    cos_angle = (normal * rays).sum(axis=1)
    offset = plane[:, 3] + normal @ cam_from_world[:, 3]  # of the plane in the camera's frame
    depth = offset / np.where(np.abs(cos_angle) < 1e-12, 1.0, cos_angle)
    is_valid = (flat >= 0) & (np.abs(cos_angle) >= 1e-12) & (depth > 0)
    return np.where(is_valid, depth, 0.0).astype(np.float32).reshape(plane_index.shape)
