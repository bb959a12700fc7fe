"""Errors of renderings of held-out photos: PSNR, SSIM, and PSNR after a colour correction.

Colours are in [0, 1]; renderings are clipped to that, as on a screen. Only pixels that the photo's mask keeps count.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Array = np.ndarray

SSIM_SIGMA_PX, SSIM_RADIUS_PX = 1.5, 5  # of the Gaussian window, 11 × 11 pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # (K1 L)² and (K2 L)², with L = 1 the range of values
MAX_PSNR_DB = 100.0  # of a rendering without any error


def score_view(
    rendering: Float[Array, "h w 3"], photo: Float[Array, "h w 3"], used: Bool[Array, "h w"]
) -> tuple[float, float, float] | None:
    """PSNR in dB, colour-corrected PSNR in dB, and SSIM over the ``used`` pixels; None where there is none."""
    if not used.any():
        return None
    rendered, truth = rendering[used], photo[used]
    ssim = ssim_map(np.clip(rendering, 0.0, 1.0), photo)[used].mean()
    corrected = color_correct(rendered, truth)
    return psnr_db(np.clip(rendered, 0.0, 1.0), truth), psnr_db(np.clip(corrected, 0.0, 1.0), truth), float(ssim)


def psnr_db(rendered: Float[Array, "n 3"], truth: Float[Array, "n 3"]) -> float:
    """−10 log₁₀ of the mean squared difference over pixels and channels, at most MAX_PSNR_DB."""
    return float(min(MAX_PSNR_DB, -10.0 * np.log10(max(float(np.mean((rendered - truth) ** 2)), 1e-12))))


def color_correct(rendered: Float[Array, "n 3"], truth: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """``rendered`` after the affine change of colours c' = A c + b that brings it nearest to ``truth`` (least squares).

    Twelve numbers fitted to each photo stand for its exposure, white balance and haze, which training could not learn
    of a held-out photo (RawNeRF, Mildenhall et al. 2022, evaluates with such a fit).
    """
    ones = np.concatenate([rendered, np.ones_like(rendered[:, :1])], axis=1).astype(np.float64)
    return ones @ np.linalg.lstsq(ones, truth.astype(np.float64), rcond=None)[0]


def ssim_map(rendered: Float[Array, "h w 3"], truth: Float[Array, "h w 3"]) -> Float[Array, "h w"]:
    """Structural similarity at every pixel, the mean of the channels (Wang et al. 2004, eq. 13).

    (2 μₓμᵧ + C₁)(2 σₓᵧ + C₂) / ((μₓ² + μᵧ² + C₁)(σₓ² + σᵧ² + C₂)), moments weighted by a Gaussian of 1.5 pixels in a
    window of 11 × 11, K₁ = 0.01, K₂ = 0.03. Beyond its border a picture goes on as its mirror image.
    """
    from scipy.ndimage import gaussian_filter

    def mean(values: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        return gaussian_filter(values, (SSIM_SIGMA_PX, SSIM_SIGMA_PX, 0.0), truncate=SSIM_RADIUS_PX / SSIM_SIGMA_PX)

    x, y = rendered.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y, covariance = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    numerator = (2.0 * mean_x * mean_y + SSIM_C1) * (2.0 * covariance + SSIM_C2)
    denominator = (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    return (numerator / denominator).mean(axis=2)
