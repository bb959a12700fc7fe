"""Planes of the scene and, for pixels of textureless regions, the plane that each shows (written by priors)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.cameras import pixel_grid, unproject
from quoin.pipeline.scene.priors import read_map_with_level
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

Array = np.ndarray
PLANES_ARRAY = "priors/planes"


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
    return arrays.read_array(run.scene, PLANES_ARRAY) if PLANES_ARRAY in run.scene else np.zeros((0, 4))


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
