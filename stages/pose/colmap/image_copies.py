"""Copies of photos and masks for COLMAP: upright, 8-bit RGB, under names that COLMAP expects."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.workers import thread_map
from quoin.pipeline.imaging.io import exif_orientation, load_mask, open_image
from quoin.pipeline.imaging.value_range import is_deep_color
from quoin.pipeline.scene.photo_table import PhotoRow, check_unchanged, load_photo

Array = np.ndarray

# COLMAP reads these as we do; photos in other color modes, or turned by EXIF, are copied as we read them
_LINKABLE_FORMATS = {"JPEG": ".jpg", "PNG": ".png"}


def write_image_copies(photos: list[PhotoRow], folder: Path, threads: int, advance: Advance) -> list[str]:
    """File names, in ``folder``, of a copy (a link where the file is upright 8-bit RGB already) of every photo.

    ``photos`` are rows of the photo table. A copy has the pixels and the size of the upright photo.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def copy(index: int) -> str:
        check_unchanged(photos[index])
        source = Path(photos[index].path)
        stem = f"{photos[index].photo_id:06d}"
        with open_image(source) as image:
            is_plain = (
                image.format in _LINKABLE_FORMATS
                and image.mode == "RGB"
                and not is_deep_color(image, source)
                and exif_orientation(image) == 1
            )
            suffix = _LINKABLE_FORMATS.get(image.format or "", ".jpg")
        target = folder / f"{stem}{suffix if is_plain else '.jpg'}"
        if is_plain:
            target.unlink(missing_ok=True)  # of an earlier attempt; the photos may have been moved since
            try:
                target.symlink_to(source)
            except OSError:  # a file system without links
                shutil.copyfile(source, target)
        elif not target.exists() or target.stat().st_size == 0:  # empty: after a power cut
            _save_jpeg(photos[index], target)
        return target.name

    return thread_map(copy, len(photos), threads, advance)


def _save_jpeg(photo: PhotoRow, target: Path) -> None:
    from PIL import Image

    part = target.with_suffix(".partial")
    Image.fromarray(load_photo(photo)).save(part, "JPEG", quality=97, subsampling=0)
    part.replace(target)


def load_usable_mask(photo: PhotoRow) -> UInt8[Array, "h w"] | None:
    """Mask of what of a photo is used, 255 or 0, without its border; None where all of it is."""
    width, height, path = photo.width, photo.height, photo.mask_path
    left, top, right, bottom = photo.border
    if not path and not any((left, top, right, bottom)):
        return None
    whole = np.full((height, width), 255, np.uint8)
    mask = load_mask(Path(path), (width, height), photo.orientation) if path else whole
    inside_border = np.zeros_like(mask)
    inside_border[top : height - bottom, left : width - right] = 255
    return np.minimum(mask, inside_border)


def write_masks(photos: list[PhotoRow], files: list[str], folder: Path, threads: int) -> int:
    """Write masks for COLMAP (``<folder>/<file>.png``, black is ignored); returns how many photos have one.

    A border counts as a mask. Where some photos have one, the others get a white one: COLMAP skips a photo whose mask
    it does not find.
    """
    n_masks = sum(bool(photo.mask_path) or any(photo.border) for photo in photos)
    if n_masks == 0:
        return 0
    folder.mkdir(parents=True, exist_ok=True)

    def write(index: int) -> None:
        from PIL import Image

        usable = load_usable_mask(photos[index])
        size = (photos[index].width, photos[index].height)
        mask = Image.new("L", size, 255) if usable is None else Image.fromarray(usable)
        mask.save(folder / f"{files[index]}.png")

    thread_map(write, len(photos), threads, lambda done: None)
    return n_masks
