"""How the picture moves from one frame of a clip to the next, and how sharp a frame is; on small grey copies.

The motion is one similarity for the whole picture, which is what a camera that moves or turns does to most of it. A
point p, from the picture's centre and in units of its long edge, moves by D(p) = (a x - b y + u, b x + a y + v):
zoom a, roll b, shift u and v. It is found by phase correlation (Kuglin and Hines 1975) and Gauss-Newton from there
(Lucas and Kanade 1981), outliers held down (Huber): things that move by themselves count little.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image

Array = np.ndarray

MOTION_EDGE_PX = 160  # long edge of the copies that motion is measured on
FLAT = 1.0  # grey levels (standard deviation) of the fine structure; below it nothing tells how a picture moves
SAME = 0.35  # correlation of two frames, one laid over the other; below it they show different things
STEPS = 6  # of Gauss-Newton at each of two sizes, at most; less than CLOSE of the long edge ends it
CLOSE = 3e-4
COARSER = 4  # the copy that slopes are compared with
FLOOR = 2.0  # grey levels a pixel, added to its slopes: where there are none, nothing is sharp
WIDE = 1.0 / COARSER  # ratio of slopes at edges wider than the coarse pixels


def evened(grey: UInt8[Array, "h w"]) -> Float32[Array, "h2 w2"]:
    """The fine structure of a frame at 160 px with standard deviation 1, whatever its exposure; zeros where flat."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    scale = min(1.0, MOTION_EDGE_PX / max(grey.shape))
    size = tuple(max(8, round(side * scale)) for side in grey.shape[::-1])
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), np.float32)
    smooth = gaussian_filter(small, 1.0)
    band = smooth - uniform_filter(smooth, 27)
    return np.zeros_like(band) if band.std() < FLAT else band / band.std()


def motion(before: Float32[Array, "h w"], after: Float32[Array, "h w"]) -> Float64[Array, "4"]:
    """(a, b, u, v) by which ``before`` becomes ``after`` (both ``evened``); NaN where they show different things.

    Zeros where either is flat: nothing tells that anything moved.
    """
    if not before.any() or not after.any():
        return np.zeros(4)
    found = np.concatenate([np.zeros(2), _shift(before, after)])
    for shrink in (2, 1):
        found = _fit(_shrunk(before, shrink), _shrunk(after, shrink), found)
    aligned, inside = _seen_through(after, found)
    return found if _correlation(aligned[inside], before[inside]) > SAME else np.full(4, np.nan)


def sharpness(grey: UInt8[Array, "h w"]) -> float:
    """How much finer the frame's edges are than a copy of a quarter of its size can tell; 0 where it is blurred.

    Root mean square slope a pixel over that of the copy, in the direction where that is less: a camera that moves blurs
    along its way only.
    """
    height, width = (side // COARSER * COARSER for side in grey.shape)
    fine = grey[:height, :width].astype(np.float32)
    coarse = fine.reshape(height // COARSER, COARSER, width // COARSER, COARSER).mean(axis=(1, 3))
    ratios = [
        np.sqrt((np.diff(fine, axis=axis) ** 2).mean() / ((np.diff(coarse, axis=axis) ** 2).mean() + FLOOR**2))
        for axis in (0, 1)
    ]
    return max(0.0, float(min(ratios)) - WIDE)


def displacement(moved: Float64[Array, "4"], shape: tuple[float, float]) -> float:
    """How far (a, b, u, v) move a picture of ``shape`` (height, width), in long edges: the median over its places."""
    there = _effect(shape) @ moved
    return float(np.median(np.hypot(there[::2], there[1::2])))


@functools.cache
def _effect(shape: tuple[float, float]) -> Float64[Array, "m 4"]:
    """Rows x and y, in turn, of where 25 places of a picture go by each of (a, b, u, v)."""
    down, across = np.meshgrid(*(np.linspace(-0.4, 0.4, 5) * side / max(shape) for side in shape), indexing="ij")
    rows = [[(x, -y, 1.0, 0.0), (y, x, 0.0, 1.0)] for x, y in zip(across.ravel(), down.ravel(), strict=True)]
    return np.array(rows).reshape(-1, 4)


def _shift(before: Float32[Array, "h w"], after: Float32[Array, "h w"]) -> Float64[Array, "2"]:
    """Shift in long edges, to the pixel, by phase correlation."""
    from scipy.fft import irfft2, rfft2

    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in before.shape))
    cross = np.conj(rfft2(before * window)) * rfft2(after * window)
    peak = irfft2(cross / np.maximum(np.abs(cross), 1e-9), before.shape)
    place = np.array(np.unravel_index(int(peak.argmax()), peak.shape), np.float64)
    sides = np.array(before.shape)
    place[place > sides / 2] -= sides[place > sides / 2]
    return place[::-1] / max(before.shape)


def _shrunk(picture: Float32[Array, "h w"], by: int) -> Float32[Array, "h2 w2"]:
    height, width = (side // by * by for side in picture.shape)
    return picture[:height, :width].reshape(height // by, by, width // by, by).mean(axis=(1, 3))


def _fit(before: Float32[Array, "h w"], after: Float32[Array, "h w"], start: Float[Array, "4"]) -> Float64[Array, "4"]:
    x, y = _places(before.shape)
    found = start.astype(np.float64)
    for _ in range(STEPS):
        aligned, inside = _seen_through(after, found)
        slope_y, slope_x = (slope * max(before.shape) for slope in np.gradient(aligned))
        residual = aligned - before
        weight = inside / np.maximum(1.0, np.abs(residual) / 0.5)
        jacobian = np.stack([slope_x * x + slope_y * y, slope_y * x - slope_x * y, slope_x, slope_y]).reshape(4, -1)
        weighted = jacobian * weight.ravel()
        normal = weighted @ jacobian.T
        step = np.linalg.solve(normal + (1e-6 * np.trace(normal) + 1e-12) * np.eye(4), weighted @ residual.ravel())
        found = found - step
        if np.abs(step).max() < CLOSE or np.abs(found).max() > 1.0:
            break
    return found


def _places(shape: tuple[int, ...]) -> tuple[Float32[Array, "h w"], Float32[Array, "h w"]]:
    """x and y of all pixels from the centre, in long edges."""
    down, across = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return (across - (shape[1] - 1) / 2) / max(shape), (down - (shape[0] - 1) / 2) / max(shape)


def _seen_through(after: Float32[Array, "h w"], moved: Float64[Array, "4"]) -> tuple[Array, Array]:
    """``after`` laid over the picture before it, and where it reaches."""
    from scipy.ndimage import affine_transform

    a, b, u, v = moved
    height, width = after.shape
    turn = np.array([[1 + a, b], [-b, 1 + a]])  # rows first
    middle = np.array([height - 1, width - 1]) / 2
    start = middle + np.array([v, u]) * max(after.shape) - turn @ middle
    seen = affine_transform(after, turn, start, order=1, mode="nearest")
    down, across = np.mgrid[:height, :width]
    at_y = start[0] + turn[0, 0] * down + turn[0, 1] * across
    at_x = start[1] + turn[1, 0] * down + turn[1, 1] * across
    return seen, (at_y >= 0) & (at_y <= height - 1) & (at_x >= 0) & (at_x <= width - 1)


def _correlation(first: Float32[Array, "n"], second: Float32[Array, "n"]) -> float:
    if len(first) < 64:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(1e-12, np.sqrt((first @ first) * (second @ second))))
