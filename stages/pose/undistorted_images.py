"""Undistorted photos in the store, and the straight lines that they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.parallel import each
from quoin.pipeline.imaging.io import load_upright
from quoin.pipeline.imaging.memory_budget import PixelBudget
from quoin.pipeline.imaging.pyramid import pyramid
from quoin.pipeline.scene.posed_images import PYRAMID_LEVELS, write_photo
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.image_copies import mask_of
from quoin.stages.pose.colmap.sparse_model import Camera, SparseModel
from quoin.stages.pose.frame.line_segments import find_segments
from quoin.stages.pose.frame.lines import Lines, lines_of
from quoin.stages.pose.hands import PHOTOS, Alone, Hands, Portion
from quoin.stages.pose.undistortion import Pinhole, undistort_photo
from quoin.stages.pose.workspace import Photo, Workshop

Array = np.ndarray

LINES_EDGE_PX = 1000  # long edge of the photos that straight lines are looked for in, at most


class Shown(NamedTuple):
    """Straight segments of a picture, ends [S, 2, 2] in pixels of the photo shrunk by ``shrunk``."""

    segments: Float[Array, "s 2 2"]
    shrunk: int


@dataclass(frozen=True)
class Picture:
    """Posed photo ``index``: which photo it is, its camera, and the one it shall seem to be taken with."""

    index: int
    photo_id: int
    camera: Camera
    pinhole: Pinhole

    def write(self, run: Run, photo: Photo) -> Shown:
        """Its undistorted pyramid and mask, into the store; the straight lines it shows."""
        rgb, use = undistort_photo(load_upright(Path(photo["path"])), mask_of(photo), self.camera, self.pinhole)
        levels = pyramid(rgb, PYRAMID_LEVELS)
        write_photo(run, self.index, levels, use)
        level = next((i for i, small in enumerate(levels) if max(small.shape) <= LINES_EDGE_PX), PYRAMID_LEVELS - 1)
        small, step = levels[level], 2**level
        return Shown(find_segments(small, use[::step, ::step][: small.shape[0], : small.shape[1]] > 127), step)


def write_photos(run: Run, shop: Workshop, photos: list[Photo], model: SparseModel, pinholes: list[Pinhole]) -> Lines:
    """Undistorted pyramids and masks of the posed photos; the straight lines they show, in the frame of SfM."""
    arrays.delete(run.scene, "photos")
    run.scene.create_group("photos")  # before many write in it
    of = zip(model.photo_ids.tolist(), model.camera_index.tolist(), strict=True)
    pictures = [Picture(i, photo, model.cameras[c], pinholes[c]) for i, (photo, c) in enumerate(of)]
    shown = _shown(run, shop, photos, pictures)
    shrunk = np.array([one.shrunk for one in shown])
    intrinsics = np.array([picture.pinhole.intrinsics for picture in pictures]) / shrunk[:, None]
    return lines_of([one.segments for one in shown], intrinsics, model.cam_from_sfm[:, :, :3])


def written(
    run: Run, pictures: list[Picture], photos: list[Photo], threads: int, advance: Callable[[float], None]
) -> list[Shown]:
    """Pictures of ``photos``, one each, into the store; only so many pixels are decoded at a time."""
    budget = PixelBudget()

    def write(i: int) -> Shown:
        with budget.hold(photos[i]["width"] * photos[i]["height"]):
            return pictures[i].write(run, photos[i])

    return each(write, len(pictures), threads, advance)


def _shown(run: Run, shop: Workshop, photos: list[Photo], pictures: list[Picture]) -> list[Shown]:
    with shop.report.task("pose/undistort", len(pictures), "photos") as advance:
        if shop.hands is not None:
            try:
                return _by_hands(shop.hands, pictures, advance)
            except Alone as error:
                shop.go_on_alone(error)
        return written(run, pictures, [photos[picture.photo_id] for picture in pictures], shop.threads, advance)


def _by_hands(hands: Hands, pictures: list[Picture], advance: Callable[[float], None]) -> list[Shown]:
    parts = [pictures[start : start + PHOTOS] for start in range(0, len(pictures), PHOTOS)]
    found: dict[int, list[Shown]] = {}
    for number, shown in hands.each("pictures", [Portion((part,), len(part)) for part in parts]):
        found[number] = shown
        advance(sum(map(len, found.values())))
    return [one for number in range(len(parts)) for one in found[number]]
