"""Supervision of a block by SfM tracks, depth maps, planes or a mesh: points on the surface, rays through free space.

Where a surface has two sides, points also get labels of occupancy (Mescheder et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quoin.pipeline.geometry.cameras import intersect_ray_box
from quoin.stages.train.data.initial_sdf import DepthMap, fuse_tsdf

Array = np.ndarray

MIN_SEGMENT_LENGTH = 1e-4  # of a line of sight inside the block, in its unit
N_INSIDE_TEST_RAYS = 3  # rays per inside test, of which one may graze an edge
MAX_INTERIOR_DEPTH = 0.03  # in the block's unit: so far behind a point on a surface space counts as occupied


@dataclass(frozen=True)
class SfmSupervision:
    """Points on the surface, and lines of sight from camera centers to points; in the block's frame."""

    points: Float[Tensor, "points 3"]
    weight: Float[Tensor, "points"]
    normal: Float[Tensor, "points 3"]  # 0 where not known
    sfm: Float[Tensor, "points"]  # 1 for points of SfM, 0 for points of depth maps and planes
    ray_origin: Float[Tensor, "lines 3"]
    ray_direction: Float[Tensor, "lines 3"]
    ray_near: Float[Tensor, "lines"]  # the part of a line inside the block, in distance from the camera
    ray_far: Float[Tensor, "lines"]
    ray_depth: Float[Tensor, "lines"]  # distance of the point

    def to(self, device: str) -> SfmSupervision:
        """The tensors on ``device``."""
        return SfmSupervision(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def free_space_rays(
    centers: np.ndarray, points: np.ndarray, photo: np.ndarray, point: np.ndarray, half_extent: np.ndarray
) -> dict[str, np.ndarray]:
    """The parts of camera-to-point lines inside the box [-half, half], as ``ray_…`` fields of SfmSupervision."""
    origin, target = centers[photo], points[point]
    depth = np.linalg.norm(target - origin, axis=1)
    direction = (target - origin) / np.maximum(depth, 1e-9)[:, None]
    near, far = intersect_ray_box(origin, direction, -half_extent, half_extent)
    end = np.minimum(far, depth)
    keep = end > near + MIN_SEGMENT_LENGTH
    return {
        "ray_origin": origin[keep],
        "ray_direction": direction[keep],
        "ray_near": near[keep],
        "ray_far": end[keep],
        "ray_depth": depth[keep],
    }


# -- occupancy ---------------------------------------------------------------------------------------------------------


def interior_points_behind(
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    reach: Float[Tensor, "n"],
    draw: Float[Tensor, "n"],
    half_extent: Float[Tensor, "3"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Points just behind the ends of lines of sight, and 1 where they are in the block, else 0.

    They lie up to MAX_INTERIOR_DEPTH behind, spread evenly in log distance over three decades by ``draw`` in [0, 1).
    """
    at = reach + MAX_INTERIOR_DEPTH * 10.0 ** (-3.0 * draw)
    points = origins + directions * at[:, None]
    return points, (points.abs() <= half_extent).all(dim=1).to(points.dtype)


def occupancy_from_mesh(
    vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], points: Float[Array, "n 3"]
) -> Bool[Array, "n"]:
    """True for points inside a closed mesh: their rays leave it an odd number of times. Eager only.

    ValueError where the mesh is open.
    """
    import open3d as o3d

    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    n_open = int((np.unique(edges, axis=0, return_counts=True)[1] % 2).sum())
    if n_open or len(faces) == 0:
        raise ValueError(
            f"the mesh is not watertight: {n_open} edges of its {len(faces)} faces are open (are its vertices welded?)"
        )
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2  # single precision far from the origin is coarse
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor((vertices - middle).astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
    )
    return scene.compute_occupancy((points - middle).astype(np.float32), nsamples=N_INSIDE_TEST_RAYS).numpy() > 0


def occupancy_from_depth(
    points: Float[Array, "n 3"], depth_maps: list[DepthMap], thickness: float
) -> tuple[Bool[Array, "n"], Bool[Array, "n"]]:
    """True for occupied points, and True for points of which it is known. Eager only.

    Points in front of the surface of some map are free. Points less than ``thickness`` behind it in at least one map,
    and in front of none, are occupied. The rest is unknown. Exact to about a pixel's footprint.
    """
    free, behind = np.zeros(len(points), bool), np.zeros(len(points), bool)
    for depth_map in depth_maps:
        ahead, count = (t.numpy() for t in fuse_tsdf(torch.from_numpy(points), [depth_map], [], thickness))
        free |= ahead > 0
        behind |= (count > 0) & (ahead <= 0)
    return behind & ~free, behind | free
