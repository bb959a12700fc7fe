"""What SfM and depth know of a block before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from quoin.pipeline.geometry.rays import intersect_ray_box

MIN_SEGMENT_LENGTH = 1e-4  # of a line of sight inside the block, in its unit


@dataclass(frozen=True)
class SfmSupervision:
    """What SfM and depth say about the block, in its local frame, as tensors on the device.

    ``points`` [P, 3] with ``weight`` [P], ``normal`` [P, 3], 0 where it is not known, and ``sfm`` [P], 1 for those of
    SfM and 0 for others; ``sight_*`` [S]: lines of sight from camera centres to points: the part ``near..end`` of each
    that lies inside the block, in distance from the camera, and the distance ``reach`` of the point.
    """

    points: Tensor
    weight: Tensor
    normal: Tensor
    sfm: Tensor
    ray_origin: Tensor
    ray_direction: Tensor
    ray_near: Tensor
    ray_far: Tensor
    ray_depth: Tensor

    def to(self, device: str) -> SfmSupervision:
        return SfmSupervision(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def free_space_rays(
    centers: np.ndarray, points: np.ndarray, photo: np.ndarray, point: np.ndarray, half_extent: np.ndarray
) -> dict[str, np.ndarray]:
    """The parts of camera-to-point segments that lie inside the box [-half, half], as the fields of Evidence."""
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
