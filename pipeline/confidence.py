"""The colours in which the confidence of a surface is shown, wherever it is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Array = np.ndarray

# of no confidence, of half, and of full: told apart without telling red from green
COLORS = ((196, 60, 26), (246, 226, 160), (35, 105, 143))


def confidence_colors(confidence: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """Colours in [0, 255] of confidences in [0, 1]: linear between COLORS."""
    at = np.linspace(0, 1, len(COLORS))
    return np.stack([np.interp(confidence, at, channel) for channel in np.array(COLORS).T], axis=-1)
