"""Plane hypotheses from a sensor's depth map, to be used among those of stereo."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses

SLOPE_REACH_PX = 2  # to either side, of the difference that a slope is taken from
MAX_BEND_SHARE = 0.02  # of inverse depth, between a pixel and the mean of both sides on the same surface


def sensor_planes(depth: Float[Tensor, "h w"]) -> PlaneHypotheses:
    """Plane of every pixel of a depth map (0: no depth), with the slope of its neighbors.

    The slope is 0, so that the plane faces the camera, where a neighbor has no depth or is on another surface.
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
