"""Undistortion: the pinhole camera of a photo, and the photo and its mask resampled for it.

The photo is resampled once with bicubic interpolation along a mesh of small quads (within 0.02 pixel of the exact map
for lenses of normal photos), and shrunk with filters that average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.workers import NoWorkersError, TaskContext, thread_map
from quoin.pipeline.imaging.filters import build_pyramid
from quoin.pipeline.imaging.io import PixelBudget
from quoin.pipeline.scene.photo_table import PhotoRow, load_photo
from quoin.pipeline.scene.posed_images import PYRAMID_LEVELS, write_photo
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.image_copies import load_usable_mask
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.frame.lines import Lines, find_segments, lines_from_segments
from quoin.stages.pose.workspace import PHOTOS_PER_TASK, Workspace, no_op, read_visible_photos, temporary_workspace

Array = np.ndarray

MAX_CANVAS_CHANGE = 0.1  # of the size, by which a side of the canvas may move out or in
QUAD_PX = 16
MAX_OVERSAMPLING = 2.0
MAX_LINES_EDGE_PX = 1000  # long edge of the photos that straight lines are looked for in, at most


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


# -- undistorted photos of a run ---------------------------------------------------------------------------------------


class ImageSegments(NamedTuple):
    """Straight segments of a photo, ends [S, 2, 2] in pixels of the photo shrunk by ``downscale``."""

    segments: Float[Array, "s 2 2"]
    downscale: int


@dataclass(frozen=True)
class UndistortedImage:
    """Posed photo ``index`` of the scene: its photo id, its camera, and the pinhole camera of the undistorted photo."""

    index: int
    photo_id: int
    camera: Camera
    pinhole: PinholeCamera

    def write(self, run: Run, photo: PhotoRow) -> ImageSegments:
        """Write the undistorted pyramid and mask; returns the straight lines in the photo."""
        rgb, use = undistort_photo(load_photo(photo), load_usable_mask(photo), self.camera, self.pinhole)
        levels = build_pyramid(rgb, PYRAMID_LEVELS)
        write_photo(run, self.index, levels, use)
        level = next((i for i, small in enumerate(levels) if max(small.shape) <= MAX_LINES_EDGE_PX), PYRAMID_LEVELS - 1)
        small, step = levels[level], 2**level
        return ImageSegments(find_segments(small, use[::step, ::step][: small.shape[0], : small.shape[1]] > 127), step)


def write_undistorted_photos(
    run: Run, workspace: Workspace, photos: list[PhotoRow], model: SparseModel, pinholes: list[PinholeCamera]
) -> Lines:
    """Write undistorted pyramids and masks of the posed photos; returns their straight lines, in the frame of SfM."""
    arrays.delete_node(run.scene, "photos")
    run.scene.create_group("photos")  # before many write in it
    photo_and_camera = zip(model.photo_ids.tolist(), model.camera_index.tolist(), strict=True)
    images = [
        UndistortedImage(i, photo, model.cameras[c], pinholes[c]) for i, (photo, c) in enumerate(photo_and_camera)
    ]
    segments_of_images = _write_images(run, workspace, photos, images)
    downscale = np.array([image_segments.downscale for image_segments in segments_of_images])
    intrinsics = np.array([image.pinhole.intrinsics for image in images]) / downscale[:, None]
    return lines_from_segments(
        [image_segments.segments for image_segments in segments_of_images], intrinsics, model.cam_from_sfm[:, :, :3]
    )


def write_undistorted_batch(
    run: Run, images: list[UndistortedImage], photos: list[PhotoRow], threads: int, advance: Advance
) -> list[ImageSegments]:
    """Write the undistorted image of each of ``photos``; the number of pixels decoded at a time is bounded."""
    budget = PixelBudget()

    def write(i: int) -> ImageSegments:
        with budget.reserve(photos[i].width * photos[i].height):
            return images[i].write(run, photos[i])

    return thread_map(write, len(images), threads, advance)


def _write_images(
    run: Run, workspace: Workspace, photos: list[PhotoRow], images: list[UndistortedImage]
) -> list[ImageSegments]:
    with workspace.report.task("pose/undistort", len(images), "photos") as advance:
        try:
            with workspace.share_photos():
                if workspace.n_workers > 1:
                    return _write_on_workers(workspace, images, advance)
        except NoWorkersError as error:
            workspace.log_local_fallback(error)
        return write_undistorted_batch(
            run, images, [photos[image.photo_id] for image in images], workspace.threads, advance
        )


def _write_on_workers(workspace: Workspace, images: list[UndistortedImage], advance: Advance) -> list[ImageSegments]:
    parts = [images[start : start + PHOTOS_PER_TASK] for start in range(0, len(images), PHOTOS_PER_TASK)]
    segments: dict[int, ImageSegments] = {}  # by index of the image
    for part, of_part in workspace.map_tasks(undistort_photos, [(part,) for part in parts]):
        segments |= {image.index: found for image, found in zip(part, of_part, strict=True)}
        advance(len(segments))
    return [segments[image.index] for image in images]


def undistort_photos(
    context: TaskContext, run: Run, config: PoseConfig, images: list[UndistortedImage]
) -> list[ImageSegments]:
    """Undistorted photos, written to the store; returns the straight segments that they show."""
    photos = read_visible_photos(run, [image.photo_id for image in images])
    with temporary_workspace(context, run, config) as workspace:
        return write_undistorted_batch(run, images, photos, workspace.threads, no_op)
