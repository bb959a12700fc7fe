"""What SfM and depth know of a block before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """What SfM and depth say about the block, in its local frame, as tensors on the device.

    ``points`` [P, 3] with ``weight`` [P], ``normal`` [P, 3], 0 where it is not known, and ``sfm`` [P], 1 for those of
    SfM and 0 for others; ``sight_*`` [S]: lines of sight from camera centres to points: the part ``enter..end`` of each
    that lies inside the block, in distance from the camera, and the distance ``reach`` of the point.
    """

    points: Tensor
    weight: Tensor
    normal: Tensor
    sfm: Tensor
    sight_origin: Tensor
    sight_direction: Tensor
    sight_enter: Tensor
    sight_end: Tensor
    sight_reach: Tensor

    def to(self, device: str) -> Evidence:
        return Evidence(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def lines_of_sight(
    centres: np.ndarray, points: np.ndarray, photo: np.ndarray, point: np.ndarray, half: np.ndarray
) -> dict[str, np.ndarray]:
    """The parts of camera-to-point segments that lie inside the box [-half, half], as the fields of Evidence."""
    origin, target = centres[photo], points[point]
    reach = np.linalg.norm(target - origin, axis=1)
    direction = (target - origin) / np.maximum(reach, 1e-9)[:, None]
    safe = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    a, b = (-half - origin) / safe, (half - origin) / safe
    enter = np.maximum(np.minimum(a, b).max(axis=1), 0.0)
    end = np.minimum(np.maximum(a, b).min(axis=1), reach)
    keep = end > enter + 1e-4
    return {
        "sight_origin": origin[keep],
        "sight_direction": direction[keep],
        "sight_enter": enter[keep],
        "sight_end": end[keep],
        "sight_reach": reach[keep],
    }
