"""Signature of a photo, from a small gray copy: a perceptual hash and a sharpness."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

Array = np.ndarray

GRAY_EDGE_PX = 512  # long edge of the gray copy
HASH_SIDE_PX = 64  # side of the square that the photo is resized to for the hash
HASH_BITS = 64
SHARPNESS_TILE_PX = 64
MIN_TILE_SLOPE = 3.0  # gray levels per coarse pixel; tiles with less have no edges
MIN_EDGE_TILES = 3


@dataclass(frozen=True)
class ImageSignature:
    """``bits``: perceptual hash; ``sharpness``: 0 (blurred) to about 1, NaN where a photo has no edges."""

    bits: int
    sharpness: float


def image_signature(rgb: UInt8[Array, "h w 3"]) -> ImageSignature:
    """The signature of an upright photo."""
    gray = gray_thumbnail(rgb)
    return ImageSignature(perceptual_hash(gray), photo_sharpness(gray))


def gray_thumbnail(rgb: UInt8[Array, "h w 3"], edge_px: int = GRAY_EDGE_PX) -> Float32[Array, "h2 w2"]:
    """The photo in gray levels, its long edge reduced to ``edge_px`` at most, by averaging."""
    image = Image.fromarray(rgb)
    scale = edge_px / max(image.size)
    if scale < 1.0:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(image.convert("L"), np.float32)


def perceptual_hash(gray: Float32[Array, "h w"]) -> int:
    """64 bits: which of the 64 lowest frequencies (cosine transform, without the mean) lie above their median.

    Compression, size and exposure change few of them, another picture half.
    """
    from scipy.fft import dctn

    square = np.asarray(Image.fromarray(gray).resize((HASH_SIDE_PX, HASH_SIDE_PX), Image.Resampling.BOX), np.float64)
    coefficients = dctn(square, norm="ortho")[:16, :16]
    down, across = np.indices(coefficients.shape)
    order = np.lexsort((down.ravel(), (down**2 + across**2).ravel()))[1 : HASH_BITS + 1]
    low = coefficients.ravel()[order]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def photo_sharpness(gray: Float32[Array, "h w"]) -> float:
    """How much finer a photo's edges are than those of a smaller copy, in the direction where they are least so.

    In each tile of 64 px: root mean square slope per pixel over the same in the copy of a quarter of the size. An edge
    wider than 4 pixels gives 1/4, which counts as 0; real photos lie between 0.1 and 1. Of the tiles with edges the
    quartile of the sharpest stands for the photo, so that a blurred background does not count against it; the lesser
    of both directions, so that motion blur does.
    """
    height, width = (size // 4 * 4 for size in gray.shape)
    fine = gray[:height, :width].astype(np.float64)
    if min(height, width) < SHARPNESS_TILE_PX + 4:
        return math.nan
    coarse = fine.reshape(height // 4, 4, width // 4, 4).mean(axis=(1, 3))
    ratios = []
    for axis in (0, 1):
        fine_slopes = _tile_means(np.diff(fine, axis=axis) ** 2, SHARPNESS_TILE_PX)
        coarse_slopes = _tile_means(np.diff(coarse, axis=axis) ** 2, SHARPNESS_TILE_PX // 4)
        rows, columns = np.minimum(fine_slopes.shape, coarse_slopes.shape)
        fine_slopes, coarse_slopes = fine_slopes[:rows, :columns], coarse_slopes[:rows, :columns]
        edged = coarse_slopes > MIN_TILE_SLOPE**2
        if edged.sum() >= MIN_EDGE_TILES:
            ratios.append(float(np.percentile(np.sqrt(fine_slopes[edged] / coarse_slopes[edged]), 75)))
    return max(0.0, min(ratios) - 0.25) if ratios else math.nan


def _tile_means(values: Array, tile: int) -> Array:
    height, width = (size // tile * tile for size in values.shape)
    return values[:height, :width].reshape(height // tile, tile, width // tile, tile).mean(axis=(1, 3))
