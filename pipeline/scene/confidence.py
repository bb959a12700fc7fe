"""Confidence of surface vertices: the threshold for confident faces, and the colors that show it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray

# of no confidence, of half, and of full: told apart without telling red from green
CONFIDENCE_COLORS = ((196, 60, 26), (246, 226, 160), (35, 105, 143))


CONFIDENCE_THRESHOLD = 0.5


def confident_faces(confidence: Float[Array, "v"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Faces whose corners are above CONFIDENCE_THRESHOLD in the mean."""
    return confidence[faces].mean(axis=1) > CONFIDENCE_THRESHOLD


def confidence_colors(confidence: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """Colours in [0, 255] of confidences in [0, 1]: linear between CONFIDENCE_COLORS."""
    at = np.linspace(0, 1, len(CONFIDENCE_COLORS))
    return np.stack([np.interp(confidence, at, channel) for channel in np.array(CONFIDENCE_COLORS).T], axis=-1)
