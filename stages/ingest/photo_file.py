"""Inspection of one file: upright size, EXIF, content hash, signature and border, or why it is not used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, RejectedFileError, Rejection
from quoin.pipeline.imaging.io import load_mask, open_image, stored_orientation, upright_rgb
from quoin.pipeline.imaging.memory_budget import PixelBudget
from quoin.stages.ingest.borders import NO_BORDER, find_borders
from quoin.stages.ingest.exif import Exif, read_exif
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, suffix_of
from quoin.stages.ingest.panorama import read_panorama_tag
from quoin.stages.ingest.perceptual_hash import ImageSignature, image_signature

Array = np.ndarray

# In other formats further frames are previews, pages, or a second eye.
ANIMATED_FORMATS = {"PNG", "WEBP", "AVIF"}


@dataclass(frozen=True)
class PhotoInspection:
    """What a file turned out to be. ``rejection``: None for a photo to use; ``mask_error``: "" for a mask that fits."""

    width: int = 0  # upright
    height: int = 0
    orientation: int = 1
    exif: Exif = field(default_factory=Exif)
    content_hash: str = ""
    signature: ImageSignature | None = None  # of a photo to use
    border: tuple[int, int, int, int] = NO_BORDER  # pixels at the left, top, right, bottom
    rejection: Rejection | None = None
    mask_error: str = ""


def inspect_photo(
    path: Path, mask: Path | None, budget: PixelBudget, *, max_pixels: int, min_side_px: int, min_contrast: float
) -> PhotoInspection:
    """Read a photo once, and its mask. Never raises for what a file holds."""
    try:
        with open_image(path, max_pixels) as image, budget.reserve(image.width * image.height):
            if image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1:
                raise RejectedFileError(Reason.ANIMATED, "not a photo")
            orientation, exif = stored_orientation(image), read_exif(image)
            panorama_kind = read_panorama_tag(image)
            rgb = upright_rgb(image)
            image.close()  # its pixels are not needed twice
            height, width = rgb.shape[:2]
            rejection = _rejection_of_pixels(rgb, min_side_px, min_contrast)
            if panorama_kind and not rejection:
                rejection = Rejection(Reason.PANORAMA, f"the file says that it is {panorama_kind}")
            pixel_hash = content_hash(rgb)
            signature = None if rejection else image_signature(rgb)
            border = NO_BORDER if rejection else find_borders(rgb)
    except RejectedFileError as error:
        is_photo_name = suffix_of(path.name) in PHOTO_SUFFIXES
        return PhotoInspection(rejection=error.rejection if is_photo_name else Rejection(Reason.NOT_A_PHOTO))
    mask_error = ""
    if mask is not None and not rejection:
        try:
            if not load_mask(mask, (width, height), orientation).any():
                rejection = Rejection(Reason.MASKED, "its mask ignores all of it")
        except QuoinError as error:
            mask_error = error.what
    return PhotoInspection(width, height, orientation, exif, pixel_hash, signature, border, rejection, mask_error)


def content_hash(rgb: UInt8[Array, "h w 3"]) -> str:
    """Hash of the pixels and their arrangement: equal for exact duplicates only, whatever their files say."""
    return hashlib.blake2b(rgb.data, digest_size=16, key=str(rgb.shape).encode()).hexdigest()


def photo_contrast(rgb: UInt8[Array, "h w 3"]) -> float:
    """Standard deviation in grey levels of the photo at thumbnail size, where sensor noise has averaged out."""
    factor = max(1, min(rgb.shape[:2]) // 64)
    return float(np.asarray(Image.fromarray(rgb).reduce(factor).convert("L")).std())


def _rejection_of_pixels(rgb: UInt8[Array, "h w 3"], min_side_px: int, min_contrast: float) -> Rejection | None:
    height, width = rgb.shape[:2]
    if min(width, height) < min_side_px:
        return Rejection(Reason.TOO_SMALL, f"{width} x {height} pixels")
    return Rejection(Reason.BLANK, "it shows nothing") if photo_contrast(rgb) < min_contrast else None
