"""Undistorted photos, written by workers or here, and the straight lines in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.parallel import thread_map
from quoin.pipeline.core.workers import NoWorkersError
from quoin.pipeline.imaging.io import load_upright
from quoin.pipeline.imaging.memory_budget import PixelBudget
from quoin.pipeline.imaging.pyramid import build_pyramid
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.pipeline.scene.posed_images import PYRAMID_LEVELS, write_photo
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.image_copies import load_usable_mask
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.frame.line_segments import find_segments
from quoin.stages.pose.frame.lines import Lines, lines_from_segments
from quoin.stages.pose.undistortion import PinholeCamera, undistort_photo
from quoin.stages.pose.workspace import PHOTOS_PER_TASK, Workspace

Array = np.ndarray

MAX_LINES_EDGE_PX = 1000  # long edge of the photos that straight lines are looked for in, at most


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
        rgb, use = undistort_photo(load_upright(Path(photo.path)), load_usable_mask(photo), self.camera, self.pinhole)
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
    from quoin.stages.pose.matching_jobs import undistort_photos  # which imports this module

    parts = [images[start : start + PHOTOS_PER_TASK] for start in range(0, len(images), PHOTOS_PER_TASK)]
    segments: dict[int, ImageSegments] = {}  # by index of the image
    for part, of_part in workspace.map_tasks(undistort_photos, [(part,) for part in parts]):
        segments |= {image.index: found for image, found in zip(part, of_part, strict=True)}
        advance(len(segments))
    return [segments[image.index] for image in images]
