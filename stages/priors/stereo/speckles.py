"""Speckle removal: small isolated segments of a depth map, most of them chance matches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.geometry.mesh import connected_components

Array = np.ndarray

MIN_SEGMENT_PX = 25  # pixels of a connected segment; smaller ones are speckles
MAX_DEPTH_STEP_SHARE = 0.05  # of depth, between neighboring pixels of a surface; few grazing surfaces are steeper

_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
_PAIRS = (  # right, below, below right, below left
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_FIRST, _FIRST), (_LAST, _LAST)),
    ((_FIRST, _LAST), (_LAST, _FIRST)),
)


def speckles(depth: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pixels with a depth (> 0) in segments of fewer than MIN_SEGMENT_PX pixels.

    8-neighbors belong to one segment if their depths differ by less than MAX_DEPTH_STEP_SHARE.
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
