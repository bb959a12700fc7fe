"""Depths that a sensor measured, as planes: what stereo's planes are compared with, and take part among."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses

SLOPE_REACH_PX = 2  # pixels to either side over which a slope is taken
MAX_BEND_SHARE = 0.02  # of inverse depth, between a pixel and the middle of both sides: more, and it is no one surface


def sensor_planes(depth: Float[Tensor, "h w"]) -> PlaneHypotheses:
    """A plane in every pixel of a depth map (0 = not known): through its depth, sloped as its neighbours say.

    Where one of them is not known or on another surface, it faces the camera.
    """
    w = torch.where(depth > 0, 1.0 / depth.clamp(min=1e-9), torch.zeros_like(depth))
    padded = functional.pad(w[None, None], (SLOPE_REACH_PX,) * 4)[0, 0]
    inner = slice(SLOPE_REACH_PX, -SLOPE_REACH_PX)

    def slope(before: Tensor, after: Tensor) -> Tensor:
        same = (before > 0) & (after > 0) & ((0.5 * (before + after) - w).abs() < MAX_BEND_SHARE * w)
        return torch.where(same, (after - before) / (2 * SLOPE_REACH_PX), torch.zeros_like(w))

    across = slope(padded[inner, : -2 * SLOPE_REACH_PX], padded[inner, 2 * SLOPE_REACH_PX :])
    down = slope(padded[: -2 * SLOPE_REACH_PX, inner], padded[2 * SLOPE_REACH_PX :, inner])
    return PlaneHypotheses(w, across, down)
