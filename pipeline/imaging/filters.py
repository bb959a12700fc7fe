"""Gray values, local contrast, samples and pyramid levels of images (numpy)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped, UInt8

Array = np.ndarray

GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue: luma of ITU-R BT.601, as in JPEG
CONTRAST_WINDOW_PX = 5  # side of the square over which local contrast is taken


def rgb_to_gray(rgb: Shaped[Array, "h w 3"], white: float = 1.0) -> Float[Array, "h w"]:
    """Gray (float32, Rec. 601 luma) of an image whose white is ``white`` in its own values and 1 in the result.

    Without ``white``, gray has the range of ``rgb``.
    """
    return rgb.astype(np.float32) @ (GRAY_WEIGHTS / white)


def local_contrast(gray: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Standard deviation over the 5 × 5 pixels around each pixel; the border mirrors the image.

    The twin in torch is ``stages.priors.stereo.hypotheses.local_contrast``, where the border counts fewer pixels.
    """
    from scipy.ndimage import uniform_filter

    mean, square = uniform_filter(gray, CONTRAST_WINDOW_PX), uniform_filter(gray * gray, CONTRAST_WINDOW_PX)
    return np.sqrt(np.maximum(square - mean * mean, 0.0))


def sample_bilinear(image: UInt8[Array, "h w c"], uv: Float[Array, "n 2"]) -> UInt8[Array, "n c"]:
    """Bilinear samples at places in [0, 1]² (x, y from the upper left corner); pixel centers are at half-integers.

    The differentiable twin in torch is ``stages.train.data.photo_set.sample_bilinear``, with places in pixels.
    """
    height, width = image.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(uv[:, 1] * height - 0.5, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int32), max(width - 2, 0)), np.minimum(y.astype(np.int32), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    u, v = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    top = image[y0, x0] * (1 - u) + image[y0, x1] * u
    bottom = image[y1, x0] * (1 - u) + image[y1, x1] * u
    return np.rint(top * (1 - v) + bottom * v).astype(np.uint8)


def sample_nearest(image: Shaped[Array, "h w"], uv: Float[Array, "n 2"]) -> Shaped[Array, "n"]:
    """Values of the pixels that hold places in [0, 1]² (x, y from the upper left corner)."""
    size = np.array(image.shape[::-1])
    column, row = np.minimum((uv * size).astype(np.int64), size - 1).T
    return image[row, column]


def build_pyramid(rgb: UInt8[Array, "h w 3"], levels: int) -> list[UInt8[Array, "_ _ 3"]]:
    """The photo and its halvings by 2 x 2 averages, sizes rounded down (an odd last row or column is dropped)."""
    out = [np.ascontiguousarray(rgb)]
    for _ in range(levels - 1):
        height, width = (max(2, size) // 2 * 2 for size in out[-1].shape[:2])
        even = np.resize(out[-1], (height, width, 3)) if min(out[-1].shape[:2]) < 2 else out[-1][:height, :width]
        blocks = even.reshape(height // 2, 2, width // 2, 2, 3).astype(np.uint16)
        out.append(((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8))
    return out


def resample_to_level(
    values: Shaped[Array, "h w"], level: int, target_level: int, shape: tuple[int, ...]
) -> Shaped[Array, "r c"]:
    """``values`` of ``level`` at level ``target_level``, of ``shape``: each pixel there has that of its first
    corner."""
    sizes = zip(shape, values.shape, strict=True)
    row, column = (np.minimum((np.arange(n) << target_level) >> level, m - 1) for n, m in sizes)
    return values[row[:, None], column]
