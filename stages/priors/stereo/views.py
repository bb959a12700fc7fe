"""Photos as views for stereo: gray values and camera at one pyramid level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def level_for_edge_px(size: Int[np.ndarray, "2"], edge_px: int) -> int:
    """The first pyramid level whose long edge is at most ``edge_px``."""
    return max(0, int(np.ceil(np.log2(max(int(size.max()), 1) / edge_px))))


class StereoView(NamedTuple):
    """A photo at one pyramid level: gray [h, w] in [0, 1], intrinsics [4] of that level, pose [3, 4]."""

    gray: Tensor
    intrinsics: Tensor
    cam_from_world: Tensor


def relative_poses(
    reference: StereoView, sources: list[StereoView]
) -> tuple[Float[Tensor, "s 3 3"], Float[Tensor, "s 3"]]:
    """Rotation and translation from the reference camera to each source camera."""
    r0, t0 = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3]
    rotation = torch.stack([s.cam_from_world[:, :3] @ r0.T for s in sources])
    translation = torch.stack([s.cam_from_world[:, 3] - rotation[i] @ t0 for i, s in enumerate(sources)])
    return rotation, translation


def ray_grid(view: StereoView) -> Float[Tensor, "3 h w"]:
    """Points at depth 1 on the rays through all pixel centers, in the camera's frame."""
    h, w = view.gray.shape
    fx, fy, cx, cy = view.intrinsics
    y, x = torch.meshgrid(
        torch.arange(h, device=view.gray.device) + 0.5, torch.arange(w, device=view.gray.device) + 0.5, indexing="ij"
    )
    return torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)])
