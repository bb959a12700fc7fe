"""Near duplicates: photos that are one picture (recompressed, resized, cropped a little, marked, brightened).

Photos taken a step apart look alike, but show parallax, which stereo needs. Two photos are compared by their texture;
among many, only those with nearly the same perceptual hash are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from PIL import Image

from quoin.stages.ingest.photo_file import HASH_BITS

Array = np.ndarray

TEXTURE_EDGES_PX = (64, 128, 256, 512)  # long edges
MAX_CROP_SHARE = 0.15  # of the size, cut from either photo
MAX_OVERHANG = 0.006  # of the size, by which a crop may exceed the photo it was cut from; a moved camera shows more
MAX_COARSE_OVERHANG = 0.015  # the same while the crop is only known coarsely
MATCH_TILE_PX = 32
MIN_TEXTURE_CORRELATION = 0.45  # of the fine structure at every size
MIN_TEXTURED_TILES = 8  # fewer tiles with texture prove nothing
MATCHED_CORRELATION = 0.7  # above it both tiles show the same
DOUBTFUL_CORRELATION = 0.5  # up to it a tile may show something else
LOST_CORRELATION = 0.3  # below it a tile shows something else
MIN_MATCHED_SHARE, MAX_LOST_TILE_SHARE = 0.75, 0.12  # of the tiles; text over a photo may cover some
# Median and 90th percentile over tiles that are not doubtful, at 512 px, after the best crop.
MAX_SHIFT_PX = (0.15, 0.3)
TILE_SEARCH_PX = 16  # around a doubtful tile, where its content is searched: if it is found, it moved
MAX_MOVED_TILES = 1

# bits of 64 that two hashes of one picture may differ in; pictures of different things differ in more
MAX_HASH_DISTANCE = 14
N_HASH_BANDS = 4
BAND_BITS = HASH_BITS // N_HASH_BANDS
MAX_CANDIDATES = 6  # nearest hashes whose pictures are compared

_FLIPS = [sum(1 << bit for bit in bits) for n in range(3) for bits in itertools.combinations(range(BAND_BITS), n)]


@dataclass(frozen=True)
class CropTransform:
    """Map from the second photo to the first, in units of their sizes: first = scale * second + offset (x, y)."""

    scale: Float64[Array, "2"]
    offset: Float64[Array, "2"]


def texture_pyramid(gray: Float32[Array, "h w"]) -> list[Float32[Array, "_ _"]]:
    """Fine structure of a photo at several sizes, coarse to fine, normalized against exposure and gamma."""
    out = []
    for edge in TEXTURE_EDGES_PX:
        scale = min(1.0, edge / max(gray.shape))
        size = tuple(max(8, round(side * scale)) for side in gray.shape[::-1])
        out.append(_normalize_texture(np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX), np.float32)))
        if scale == 1.0:
            break
    return out


def _normalize_texture(gray: Float32[Array, "h w"]) -> Float32[Array, "h w"]:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(gray, 0.7)
    band = smooth - gaussian_filter(smooth, 3.0)
    return band / (np.sqrt(gaussian_filter(band * band, 6.0)) + 3.0)


def is_same_picture(first: list[Float32[Array, "_ _"]], second: list[Float32[Array, "_ _"]]) -> bool:
    """Whether one of two photos (their ``texture_pyramid``) is a crop of the other, however it was saved.

    The best crop is found by Gauss-Newton from coarse to fine. After it no part may be shifted, as it is by parallax.
    """
    crop = CropTransform(np.ones(2), np.zeros(2))
    is_aligned = False
    for level, (source, target) in enumerate(zip(first, second, strict=False)):
        crop = _align(source, target, crop)
        aligned, inside = _warp(source, crop, target.shape)
        if (
            np.abs(np.concatenate([crop.scale - 1.0, crop.offset])).max() > MAX_CROP_SHARE
            or (level > 0 and not _is_contained(crop, MAX_COARSE_OVERHANG))
            or _correlation(aligned[inside], target[inside]) < MIN_TEXTURE_CORRELATION
        ):
            return False
        is_aligned = level + 1 == min(len(first), len(second)) and _is_aligned(aligned, target, inside)
    return is_aligned and _is_contained(crop, MAX_OVERHANG)


def _correlation(first: Float32[Array, "n"], second: Float32[Array, "n"]) -> float:
    if not len(first):
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(1e-12, np.sqrt((first @ first) * (second @ second))))


def _align(source: Float32[Array, "h w"], target: Float32[Array, "h2 w2"], crop: CropTransform) -> CropTransform:
    """The crop of ``source`` most like ``target``: Gauss-Newton on 4 numbers with Huber weights."""
    height, width = target.shape
    down, across = np.mgrid[:height, :width]
    position = np.stack([(across + 0.5) / width, (down + 0.5) / height])
    for _ in range(8):
        aligned, inside = _warp(source, crop, target.shape)
        slope_y, slope_x = np.gradient(aligned)
        slopes = np.stack([slope_x * width, slope_y * height]) * inside
        residual = (aligned - target) * inside
        weight = inside / np.maximum(1.0, np.abs(residual) / 0.5)
        jacobian = np.concatenate([slopes * position, slopes]).reshape(4, -1)
        normal = (jacobian * weight.ravel()) @ jacobian.T
        step = np.linalg.solve(
            normal + (1e-6 * np.trace(normal) + 1e-12) * np.eye(4), jacobian @ (weight * residual).ravel()
        )
        crop = CropTransform(crop.scale * (1.0 - step[:2]), crop.offset - step[2:] * crop.scale)
        if np.abs(step).max() < 1e-4 or np.abs(crop.offset).max() > 2 * MAX_CROP_SHARE:
            break
    return crop


def _warp(
    source: Float32[Array, "h w"], crop: CropTransform, shape: tuple[int, ...]
) -> tuple[Float32[Array, "h2 w2"], Bool[Array, "h2 w2"]]:
    """``source`` resampled to ``shape`` by the crop, and the mask of the pixels it covers."""
    from scipy.ndimage import affine_transform

    sizes = np.array(source.shape, float)
    pitch = crop.scale[::-1] * sizes / np.array(shape)  # rows first
    start = crop.offset[::-1] * sizes + 0.5 * pitch - 0.5
    warped = affine_transform(source, pitch, start, output_shape=shape, order=1, mode="nearest")
    inside = [
        (start[a] + pitch[a] * np.arange(shape[a]) >= 0.5)
        & (start[a] + pitch[a] * np.arange(shape[a]) <= sizes[a] - 1.5)
        for a in (0, 1)
    ]
    return warped, inside[0][:, None] & inside[1][None]


def _is_contained(crop: CropTransform, overhang: float) -> bool:
    """Whether one photo lies within the other; a camera that turned or moved shows something new at one side."""
    low, high = crop.offset, crop.offset + crop.scale
    second_in_first = bool((low >= -overhang).all() and (high <= 1.0 + overhang).all())
    first_in_second = bool((low <= overhang).all() and (high >= 1.0 - overhang).all())
    return second_in_first or first_in_second


def _is_aligned(aligned: Float32[Array, "h w"], target: Float32[Array, "h w"], inside: Bool[Array, "h w"]) -> bool:
    """Whether nearly all tiles show the same, and in the same place (one step of Lucas-Kanade per tile)."""
    slope_y, slope_x = np.gradient(aligned)
    residual = (aligned - target) * inside

    def sums(values: Array) -> Array:
        height, width = (size // MATCH_TILE_PX * MATCH_TILE_PX for size in values.shape)
        tiles = (values * inside)[:height, :width].astype(np.float64)
        return tiles.reshape(height // MATCH_TILE_PX, MATCH_TILE_PX, width // MATCH_TILE_PX, MATCH_TILE_PX).sum(
            axis=(1, 3)
        )

    xx, xy, yy = sums(slope_x * slope_x), sums(slope_x * slope_y), sums(slope_y * slope_y)
    x, y = sums(slope_x * residual), sums(slope_y * residual)
    determinant, trace = xx * yy - xy * xy, xx + yy
    min_eigenvalue = 0.5 * (trace - np.sqrt(np.maximum(trace * trace - 4.0 * determinant, 0.0)))
    count = np.maximum(1.0, sums(np.ones_like(aligned)))
    textured = (min_eigenvalue > 0.01 * MATCH_TILE_PX**2) & (count > 0.9 * MATCH_TILE_PX**2)
    if textured.sum() < MIN_TEXTURED_TILES:
        return False
    shift = np.hypot(yy * x - xy * y, xx * y - xy * x) / np.maximum(determinant, 1e-12)
    variance_aligned = sums(aligned * aligned) - sums(aligned) ** 2 / count
    variance_target = sums(target * target) - sums(target) ** 2 / count
    covariance = sums(aligned * target) - sums(aligned) * sums(target) / count
    correlation = covariance / np.sqrt(np.maximum(variance_aligned * variance_target, 1e-12))
    if (correlation > MATCHED_CORRELATION)[textured].mean() < MIN_MATCHED_SHARE or (correlation < LOST_CORRELATION)[
        textured
    ].mean() > MAX_LOST_TILE_SHARE:
        return False
    median, shift_p90 = np.percentile(shift[textured & (correlation > DOUBTFUL_CORRELATION)], (50, 90))
    if median > MAX_SHIFT_PX[0] or shift_p90 > MAX_SHIFT_PX[1]:
        return False
    return (
        _count_moved_tiles(aligned, target, np.argwhere(textured & (correlation <= DOUBTFUL_CORRELATION)))
        <= MAX_MOVED_TILES
    )


def _count_moved_tiles(aligned: Float32[Array, "h w"], target: Float32[Array, "h w"], tiles: Int[Array, "n 2"]) -> int:
    """How many tiles (row, column) of ``target`` are shifted in ``aligned``, such as objects in front of a wall."""
    n_moved = 0
    for top, left in tiles * MATCH_TILE_PX:
        rows = slice(max(0, top - TILE_SEARCH_PX), top + MATCH_TILE_PX + TILE_SEARCH_PX)
        columns = slice(max(0, left - TILE_SEARCH_PX), left + MATCH_TILE_PX + TILE_SEARCH_PX)
        tile = target[top : top + MATCH_TILE_PX, left : left + MATCH_TILE_PX]
        n_moved += _best_ncc(aligned[rows, columns], tile) > MATCHED_CORRELATION
    return n_moved


def _best_ncc(area: Float32[Array, "h w"], tile: Float32[Array, "t t"]) -> float:
    """The largest normalised cross-correlation of ``tile`` with a piece of ``area`` of its size."""
    pieces = np.lib.stride_tricks.sliding_window_view(area, tile.shape).reshape(-1, tile.size)
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    centered = (tile - tile.mean()).ravel()
    return float((pieces @ centered / np.sqrt((pieces**2).sum(axis=1) * (centered @ centered) + 1e-12)).max())


# -- search among many photos, without comparing all pairs -------------------------------------------------------------


class HashIndex:
    """Photos by their perceptual hash, to find those with nearly the same (multi-index hashing, Norouzi et al. 2012).

    Hashes are looked up by bands of 16 bits with at most 2 bits flipped: that finds all within 11 bits of 64, and most
    within 14.
    """

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}
        self._photos_by_band: list[dict[int, list[int]]] = [{} for _ in range(N_HASH_BANDS)]

    def add(self, photo: int, bits: int) -> None:
        """Put a photo in."""
        self._bits[photo] = bits
        for photos_by_key, key in zip(self._photos_by_band, _band_keys(bits), strict=True):
            photos_by_key.setdefault(key, []).append(photo)

    def nearest(self, bits: int) -> list[int]:
        """At most MAX_CANDIDATES photos within MAX_HASH_DISTANCE of a hash, the nearest first."""
        candidates: set[int] = set()
        for photos_by_key, key in zip(self._photos_by_band, _band_keys(bits), strict=True):
            for flip in _FLIPS:
                candidates.update(photos_by_key.get(key ^ flip, ()))
        distances = sorted(((bits ^ self._bits[photo]).bit_count(), photo) for photo in candidates)
        return [photo for distance, photo in distances if distance <= MAX_HASH_DISTANCE][:MAX_CANDIDATES]


def _band_keys(bits: int) -> list[int]:
    return [(bits >> (band * BAND_BITS)) & ((1 << BAND_BITS) - 1) for band in range(N_HASH_BANDS)]


def find_near_duplicates(
    bits: Mapping[int, int],
    best_first: Sequence[int],
    is_same: Callable[[int, int], bool],
    advance: Callable[[float], None] = lambda done: None,
) -> dict[int, int]:
    """Photo -> the better photo that shows the same picture, which is kept.

    ``bits`` are hashes by photo, ``best_first`` orders the photos. Each is compared by ``is_same`` with the nearest few
    of those kept so far: in a slow film, each frame that is kept has moved against all before it.
    """
    kept = HashIndex()
    better_photo: dict[int, int] = {}
    for done, photo in enumerate(best_first, 1):
        original = next((candidate for candidate in kept.nearest(bits[photo]) if is_same(candidate, photo)), None)
        if original is None:
            kept.add(photo, bits[photo])
        else:
            better_photo[photo] = original
        advance(done)
    return better_photo
