"""Robust statistics: the spread of values and the residuals of inliers, by medians."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Array = np.ndarray

MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, of normally distributed values
MAX_INLIER_SIGMAS = 3.0  # residuals within so many robust standard deviations are inliers
MIN_INLIER_RESIDUAL = 1e-9  # smallest limit, for fits that are exact up to rounding


def robust_sigma(deviations: Float[Array, "n"]) -> float:
    """Standard deviation of most values, from their ``deviations`` from the center: 1.4826 · median(|deviation|)."""
    return MAD_TO_SIGMA * float(np.median(np.abs(deviations)))


def inlier_limit(residuals: Float[Array, "n"]) -> float:
    """Largest residual (>= 0) of an inlier: MAX_INLIER_SIGMAS robust standard deviations of ``residuals``."""
    return max(MAX_INLIER_SIGMAS * MAD_TO_SIGMA * float(np.median(residuals)), MIN_INLIER_RESIDUAL)
