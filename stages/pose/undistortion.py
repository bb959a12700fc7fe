"""Undistortion: the pinhole camera of a photo, and the photo and its mask resampled for it.

The photo is resampled once with bicubic interpolation along a mesh of small quads (within 0.02 pixel of the exact map
for lenses of normal photos), and shrunk with filters that average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from quoin.stages.pose.colmap.camera import Camera

Array = np.ndarray

MAX_CANVAS_CHANGE = 0.1  # of the size, by which a side of the canvas may move out or in
QUAD_PX = 16
MAX_OVERSAMPLING = 2.0


@dataclass(frozen=True)
class PinholeCamera:
    """The undistorted camera: ``intrinsics`` fx, fy, cx, cy for ``width`` x ``height`` pixels."""

    intrinsics: Float[Array, "4"]
    width: int
    height: int

    def pixels(self, camera: Camera, xy: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        """Undistorted pixels of pixels in the distorted photo; NaN for those beyond the fold of its lens."""
        return camera.cam_from_img(xy) * self.intrinsics[:2] + self.intrinsics[2:]


def fit_pinhole(camera: Camera, max_edge_px: int) -> PinholeCamera:
    """The pinhole camera that shows the photo without blank borders, each side moved by at most ``MAX_CANVAS_CHANGE``
    of the size.

    Same focal length as the photo at its own resolution, then shrunk to ``max_edge_px`` where it is larger.
    """
    fx, fy, cx, cy = camera.pinhole_params
    width, height = camera.width, camera.height
    across, down = np.linspace(0, width, 65), np.linspace(0, height, 65)

    def edge(x: Array | float, y: Array | float) -> Array:
        pixels = np.stack(np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float)), axis=1)
        ideal = camera.cam_from_img(pixels) * [fx, fy] + [cx, cy]
        far_outside = np.where(pixels < [cx, cy], -np.inf, np.inf)
        return np.where(np.isnan(ideal), far_outside, ideal)  # beyond the fold of the lens

    def bounded(value: float, side: float, size: int) -> int:
        return round(float(np.clip(value, side - MAX_CANVAS_CHANGE * size, side + MAX_CANVAS_CHANGE * size)))

    left = bounded(edge(0.0, down)[:, 0].max(), 0, width)
    right = bounded(edge(width, down)[:, 0].min(), width, width)
    top = bounded(edge(across, 0.0)[:, 1].max(), 0, height)
    bottom = bounded(edge(across, height)[:, 1].min(), height, height)
    full_width, full_height = right - left, bottom - top
    scale = min(1.0, max_edge_px / max(full_width, full_height))
    out_width, out_height = max(1, round(full_width * scale)), max(1, round(full_height * scale))
    sx, sy = out_width / full_width, out_height / full_height
    return PinholeCamera(np.array([fx * sx, fy * sy, (cx - left) * sx, (cy - top) * sy]), out_width, out_height)


def undistort_photo(
    rgb: UInt8[Array, "h w 3"], mask: UInt8[Array, "h w"] | None, camera: Camera, pinhole: PinholeCamera
) -> tuple[UInt8[Array, "h2 w2 3"], UInt8[Array, "h2 w2"]]:
    """The photo and its mask (255 use, 0 ignore) as the pinhole camera would have taken them.

    Pixels that the photo does not show are 0 in the mask.
    """
    from PIL import Image

    shrink = min(1.0, pinhole.intrinsics[0] / camera.pinhole_params[0])
    oversampling = min(
        MAX_OVERSAMPLING, 1.0 / shrink
    )  # bent at a finer resolution, then averaged: bending alone would blur
    size = _scaled((camera.width, camera.height), shrink * oversampling)
    shape = _scaled((pinhole.width, pinhole.height), oversampling)
    canvas = PinholeCamera(pinhole.intrinsics * np.tile(np.divide(shape, (pinhole.width, pinhole.height)), 2), *shape)
    quads, inside = _quads(camera, canvas, np.divide(size, (camera.width, camera.height)))

    def bend(pixels: Array, shrinking: Image.Resampling, bending: Image.Resampling) -> Image.Image:
        image = Image.fromarray(pixels)
        small = image if image.size == size else image.resize(size, shrinking)
        return small.transform(shape, Image.Transform.MESH, quads, bending)

    def average(image: Image.Image) -> Array:
        final_size = (pinhole.width, pinhole.height)
        return np.asarray(image if image.size == final_size else image.resize(final_size, Image.Resampling.HAMMING))

    photo = average(bend(rgb, Image.Resampling.HAMMING, Image.Resampling.BICUBIC))
    valid = np.full((camera.height, camera.width), 255, np.uint8) if mask is None else mask
    use = np.array(bend(valid, Image.Resampling.BOX, Image.Resampling.BILINEAR))
    use[~inside] = 0
    return photo, np.where(average(Image.fromarray(use)) >= 128, 255, 0).astype(np.uint8)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _quads(camera: Camera, pinhole: PinholeCamera, ratio: Float[Array, "2"]) -> tuple[list, Array]:
    """Pillow's mesh (output box, corners NW SW SE NE in the shrunk photo), and which output pixels the photo shows."""
    xs = np.unique(np.append(np.arange(0, pinhole.width, QUAD_PX), pinhole.width))
    ys = np.unique(np.append(np.arange(0, pinhole.height, QUAD_PX), pinhole.height))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    ideal = (grid - pinhole.intrinsics[2:]) / pinhole.intrinsics[:2]
    source = (camera.img_from_cam(ideal) * ratio).reshape(len(ys), len(xs), 2)
    is_valid = camera.is_within_valid_radius(ideal).reshape(len(ys), len(xs))
    quads, inside = [], np.zeros((pinhole.height, pinhole.width), bool)
    for row in range(len(ys) - 1):
        for column in range(len(xs) - 1):
            corners = source[[row, row + 1, row + 1, row], [column, column, column + 1, column + 1]]
            box = (int(xs[column]), int(ys[row]), int(xs[column + 1]), int(ys[row + 1]))
            if is_valid[row : row + 2, column : column + 2].all():
                quads.append((box, tuple(corners.ravel())))
                inside[box[1] : box[3], box[0] : box[2]] = True
    return quads, inside
