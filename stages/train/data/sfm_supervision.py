"""Supervision of a block by SfM tracks, depth maps and planes: points on the surface, and rays through free space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from quoin.pipeline.geometry.rays import intersect_ray_box

MIN_SEGMENT_LENGTH = 1e-4  # of a line of sight inside the block, in its unit


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
