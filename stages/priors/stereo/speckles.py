"""Believed depths that stand alone: small islands in what is not known, most of them chance matches in a sky."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.geometry.mesh import connected_components

Array = np.ndarray

MIN_SEGMENT_PX = 25  # of one surface that hang together; fewer are chance
MAX_DEPTH_STEP_SHARE = 0.05  # of depth, from a pixel to the next of the same surface; grazing ones seldom change faster

_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
_PAIRS = (  # right, below, below right, below left
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_FIRST, _FIRST), (_LAST, _LAST)),
    ((_FIRST, _LAST), (_LAST, _FIRST)),
)


def speckles(depth: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Known pixels (depth > 0) in pieces that are small.

    A piece is of one surface: 8-neighbours whose depths differ by less than the share MAX_DEPTH_STEP_SHARE.
    """
    is_valid = depth > 0
    log_depth = np.log(np.where(is_valid, depth, 1.0))
    number = np.arange(depth.size).reshape(depth.shape)
    connected = [
        is_valid[a] & is_valid[b] & (np.abs(log_depth[a] - log_depth[b]) < MAX_DEPTH_STEP_SHARE) for a, b in _PAIRS
    ]
    first = np.concatenate([number[a][join] for (a, _), join in zip(_PAIRS, connected, strict=True)])
    second = np.concatenate([number[b][join] for (_, b), join in zip(_PAIRS, connected, strict=True)])
    segment = connected_components(first, second, depth.size)[1]
    small = np.bincount(segment) < MIN_SEGMENT_PX
    return is_valid & small[segment].reshape(depth.shape)
