"""Motion of the picture from one frame of a clip to the next, and sharpness of a frame; on small gray copies.

The motion is a smooth field: a camera that turns moves the whole picture alike, but one that walks around an object
moves its front one way and the background the other. Phase correlation (Kuglin and Hines 1975) finds the motion of the
whole picture; windows of Lucas and Kanade (1981), coarse to fine, the rest at each place.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

Array = np.ndarray

MOTION_EDGE_PX = 160  # long edge of the copies that motion is measured on
MIN_TEXTURE_STD = 1.0  # gray levels (standard deviation) of the fine structure; below it motion cannot be measured
MIN_FRAME_CORRELATION = 0.35  # of two aligned frames; below it they show different things
FLOW_LEVELS = ((4, 3), (2, 2), (1, 1))  # how many times smaller the copies are, and iterations on them
FLOW_WINDOW_SHARE = 0.2  # of the long edge
FLOW_REGULARIZATION = 0.05  # of the mean squared slopes; windows with much less keep the motion of the whole picture
MOTION_GRID_SIZE = 5  # places across and down at which the motion is kept
COARSE_FACTOR = 4  # how many times smaller the copy is that slopes are compared with
SLOPE_FLOOR = 2.0  # gray levels per pixel, added to the slopes of the copy, so that flat frames are not sharp
WIDE_EDGE_RATIO = 1.0 / COARSE_FACTOR  # ratio of slopes at edges wider than the coarse pixels


def normalized_texture(gray: UInt8[Array, "h w"]) -> Float32[Array, "h2 w2"]:
    """The fine structure of a frame at 160 px with standard deviation 1, whatever its exposure; zeros where flat."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    scale = min(1.0, MOTION_EDGE_PX / max(gray.shape))
    size = tuple(max(32, round(side * scale)) for side in gray.shape[::-1])
    small = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX), np.float32)
    smooth = gaussian_filter(small, 1.0)
    band = smooth - uniform_filter(smooth, 27)
    return np.zeros_like(band) if band.std() < MIN_TEXTURE_STD else band / band.std()


def estimate_motion(previous: Float32[Array, "h w"], current: Float32[Array, "h w"]) -> Float32[Array, "m 2"]:
    """Motion (x, y) of 25 places from ``previous`` to ``current`` (both ``normalized_texture``), in long edges.

    NaN if the frames show different things; zeros if either is flat, as no motion can be seen then.
    """
    if not previous.any() or not current.any():
        return np.zeros((MOTION_GRID_SIZE**2, 2), np.float32)
    flow = np.zeros((2, 1, 1), np.float32) + _phase_correlation(previous, current)[:, None, None]
    for shrink, steps in FLOW_LEVELS:
        first, second = _downsample(previous, shrink), _downsample(current, shrink)
        flow = _resize_flow(flow, first.shape)
        for _ in range(steps):
            flow = _smooth_flow(flow + _lucas_kanade_step(first, *_warp(second, flow)))
    aligned, inside = _warp(current, flow)
    if _correlation(aligned[inside], previous[inside]) < MIN_FRAME_CORRELATION:
        return np.full((MOTION_GRID_SIZE**2, 2), np.nan, np.float32)
    down, across = (np.linspace(0.1, 0.9, MOTION_GRID_SIZE) * side for side in previous.shape)
    return flow[:, down.astype(int)][:, :, across.astype(int)].reshape(2, -1).T


def displacement(moved: Float[Array, "m 2"]) -> float:
    """Distance that a picture has moved, in long edges: the 75th percentile over its places.

    The middle hardly moves while a camera walks around an object, so that the median would be too small.
    """
    return float(np.percentile(np.hypot(moved[:, 0], moved[:, 1]), 75))


def frame_sharpness(gray: UInt8[Array, "h w"]) -> float:
    """Sharpness of a frame: how much finer its edges are than those of a copy of a quarter of its size; 0 if blurred.

    Root mean square slope per pixel over that of the copy, in the direction where it is lower, because motion blurs in
    one direction only.
    """
    height, width = (side // COARSE_FACTOR * COARSE_FACTOR for side in gray.shape)
    fine = gray[:height, :width].astype(np.float32)
    coarse = fine.reshape(height // COARSE_FACTOR, COARSE_FACTOR, width // COARSE_FACTOR, COARSE_FACTOR).mean(
        axis=(1, 3)
    )
    ratios = [
        np.sqrt((np.diff(fine, axis=axis) ** 2).mean() / ((np.diff(coarse, axis=axis) ** 2).mean() + SLOPE_FLOOR**2))
        for axis in (0, 1)
    ]
    return max(0.0, float(min(ratios)) - WIDE_EDGE_RATIO)


def _phase_correlation(previous: Float32[Array, "h w"], current: Float32[Array, "h w"]) -> Float32[Array, "2"]:
    """Shift (x, y) of the whole picture in long edges, to the pixel, by phase correlation."""
    from scipy.fft import irfft2, rfft2

    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in previous.shape))
    cross = np.conj(rfft2(previous * window)) * rfft2(current * window)
    peak = irfft2(cross / np.maximum(np.abs(cross), 1e-9), previous.shape)
    place = np.array(np.unravel_index(int(peak.argmax()), peak.shape))
    sides = np.array(previous.shape)
    place = np.where(place > sides / 2, place - sides, place)
    return (place[::-1] / max(previous.shape)).astype(np.float32)


def _downsample(picture: Float32[Array, "h w"], by: int) -> Float32[Array, "h2 w2"]:
    height, width = (side // by * by for side in picture.shape)
    return picture[:height, :width].reshape(height // by, by, width // by, by).mean(axis=(1, 3))


def _resize_flow(flow: Float32[Array, "2 h w"], shape: tuple[int, ...]) -> Float32[Array, "2 h2 w2"]:
    rows, columns = (np.arange(side) * flow.shape[axis] // side for axis, side in enumerate(shape, 1))
    return flow[:, rows][:, :, columns]


def _smooth_flow(flow: Float32[Array, "2 h w"]) -> Float32[Array, "2 h w"]:
    """The flow without structure finer than a window, which further iterations would amplify."""
    from scipy.ndimage import gaussian_filter

    sigma = FLOW_WINDOW_SHARE / 4 * max(flow.shape)
    return gaussian_filter(flow, (0.0, sigma, sigma), mode="nearest", truncate=2.0)


def _lucas_kanade_step(
    previous: Float32[Array, "h w"], aligned: Float32[Array, "h w"], inside: Bool[Array, "h w"]
) -> Float32[Array, "2 h w"]:
    """Remaining motion (x, y) around each pixel in long edges: one step of Lucas and Kanade."""
    from scipy.ndimage import uniform_filter

    edge = max(previous.shape)
    slope_y, slope_x = np.gradient(aligned)
    residual = (previous - aligned) * inside

    def sums(values: Array) -> Array:
        return uniform_filter(values, round(FLOW_WINDOW_SHARE * edge), mode="constant")

    xx, xy, yy = sums(slope_x * slope_x * inside), sums(slope_x * slope_y * inside), sums(slope_y * slope_y * inside)
    x, y = sums(slope_x * residual), sums(slope_y * residual)
    regularization = FLOW_REGULARIZATION * float((xx + yy).mean()) + 1e-9
    xx, yy = xx + regularization, yy + regularization
    step = np.stack([yy * x - xy * y, xx * y - xy * x]) / (xx * yy - xy * xy) / edge
    return step.astype(np.float32)


def _warp(current: Float32[Array, "h w"], flow: Float32[Array, "2 h w"]) -> tuple[Array, Array]:
    """``current`` resampled onto the frame before it, and the mask of the pixels it covers."""
    from scipy.ndimage import map_coordinates

    height, width = current.shape
    at_x = np.arange(width, dtype=np.float32) + flow[0] * max(current.shape)
    at_y = np.arange(height, dtype=np.float32)[:, None] + flow[1] * max(current.shape)
    warped = map_coordinates(current, [at_y, at_x], order=1, mode="nearest")
    return warped, (at_x >= 0) & (at_x <= width - 1) & (at_y >= 0) & (at_y <= height - 1)


def _correlation(first: Float32[Array, "n"], second: Float32[Array, "n"]) -> float:
    if len(first) < 64:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(1e-12, np.sqrt((first @ first) * (second @ second))))
