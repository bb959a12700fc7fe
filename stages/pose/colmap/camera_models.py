"""COLMAP's perspective camera models in numpy: pixels from directions and back.

Directions are x / z, y / z in the camera frame. Pixel (0, 0) is the corner of the first pixel. Formulas as in COLMAP's
``sensor/models.h``, which follows OpenCV.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.sparse_model import Camera

Array = np.ndarray

# how many leading parameters are focal lengths, and how the rest is read: radial numerator, denominator, tangential
_MODELS: dict[str, tuple[int, int, int, bool]] = {
    "SIMPLE_PINHOLE": (1, 0, 0, False),
    "PINHOLE": (2, 0, 0, False),
    "SIMPLE_RADIAL": (1, 1, 0, False),
    "RADIAL": (1, 2, 0, False),
    "OPENCV": (2, 2, 0, True),
    "FULL_OPENCV": (2, 3, 3, True),
}
_FISHEYE: dict[str, tuple[int, int]] = {
    "SIMPLE_RADIAL_FISHEYE": (1, 1),
    "RADIAL_FISHEYE": (1, 2),
    "OPENCV_FISHEYE": (2, 4),
}


def pinhole_params(camera: Camera) -> Float[Array, "4"]:
    """fx, fy, cx, cy of any supported model; QuoinError for another."""
    return _split_params(camera)[0]


def mean_focal_px(camera: Camera) -> float:
    """Mean focal length."""
    return float(pinhole_params(camera)[:2].mean())


def _split_params(camera: Camera) -> tuple[Float[Array, "4"], Array]:
    if camera.model not in _MODELS and camera.model not in _FISHEYE:
        supported = ", ".join([*_MODELS, *_FISHEYE])
        raise QuoinError(
            f"Camera model {camera.model} is not supported", hint=f"convert the model to one of {supported}"
        )
    n_focal = (_MODELS.get(camera.model) or _FISHEYE[camera.model])[0]
    params = np.asarray(camera.params, np.float64)
    focals = params[[0, 0]] if n_focal == 1 else params[:2]
    return np.concatenate([focals, params[n_focal : n_focal + 2]]), params[n_focal + 2 :]


def _distort_direction(camera: Camera, extra: Array, xy: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Distorted direction of an ideal one."""
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    if camera.model in _FISHEYE:
        r = np.sqrt(r2)
        theta = np.arctan(r)
        t2 = theta * theta
        distorted = theta * (1 + sum(k * t2 ** (i + 1) for i, k in enumerate(extra)))
        return xy * np.where(r > 1e-8, distorted / np.maximum(r, 1e-8), 1.0)[:, None]
    _, n_numerator, n_denominator, tangential = _MODELS[camera.model]
    if camera.model == "FULL_OPENCV":  # k1 k2 p1 p2 k3 k4 k5 k6
        numerator, (p1, p2), denominator = extra[[0, 1, 4]], extra[2:4], extra[5:8]
    else:
        numerator, denominator = extra[:n_numerator], extra[n_numerator : n_numerator + n_denominator]
        p1, p2 = extra[n_numerator : n_numerator + 2] if tangential else (0.0, 0.0)
    factor = 1 + sum(k * r2 ** (i + 1) for i, k in enumerate(numerator))
    factor = factor / (1 + sum(k * r2 ** (i + 1) for i, k in enumerate(denominator)))
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return np.stack([x * factor + dx, y * factor + dy], axis=1)


def distort(camera: Camera, xy: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Pixels [n, 2] of the distorted photo for ideal directions [n, 2]."""
    pinhole, extra = _split_params(camera)
    return _distort_direction(camera, extra, np.asarray(xy, np.float64)) * pinhole[:2] + pinhole[2:]


def undistort(camera: Camera, pixels: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Ideal directions [n, 2] of distorted pixels, by Newton's method with a numeric Jacobian (residual < 1e-10)."""
    pinhole, extra = _split_params(camera)
    target = (np.asarray(pixels, np.float64) - pinhole[2:]) / pinhole[:2]
    xy, step = target.copy(), 1e-6
    for _ in range(20):
        error = _distort_direction(camera, extra, xy) - target
        if not len(error) or np.abs(error).max() < 1e-12:
            break
        columns = [
            (_distort_direction(camera, extra, xy + step * axis) - _distort_direction(camera, extra, xy - step * axis))
            / (2 * step)
            for axis in np.eye(2)
        ]
        (a, c), (b, d) = columns[0].T, columns[1].T
        det = a * d - b * c
        det = np.where(np.abs(det) > 1e-6, det, 1e-6)
        update = np.stack([d * error[:, 0] - b * error[:, 1], a * error[:, 1] - c * error[:, 0]], 1) / det[:, None]
        xy = xy - np.clip(update, -0.5, 0.5)
    return xy


def is_within_valid_radius(camera: Camera, xy: Float[Array, "n 2"]) -> Bool[Array, "n"]:
    """Which ideal directions lie where the radial curve still grows: beyond its fold a pixel shows something else."""
    _, extra = _split_params(camera)
    radius = np.linalg.norm(xy, axis=1)
    grid = np.linspace(0.0, max(float(radius.max(initial=0.0)), 1e-6), 512)
    distorted = _distort_direction(camera, extra, np.stack([grid, np.zeros_like(grid)], axis=1))[:, 0]
    falling = np.flatnonzero(np.diff(distorted) <= 0)
    return radius <= (grid[falling[0]] if len(falling) else np.inf)
