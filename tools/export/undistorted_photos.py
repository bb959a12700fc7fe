"""Undistorted photos and their masks as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from PIL import Image

from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage.run import Run

EXPORT_JPEG_QUALITY = 95


def jpeg_names(names: list[str]) -> list[str]:
    """A JPEG's name per photo: its own with the ending .jpg, its whole name and .jpg where that would not be unique."""
    short = [str(PurePosixPath(name).with_suffix(".jpg")) for name in names]
    count = Counter(name.lower() for name in short)  # some disks know no case
    return [s if count[s.lower()] == 1 else f"{name}.jpg" for s, name in zip(short, names, strict=True)]


def export_photos(run: Run, folder: Path, names: list[str], advance: Callable[[float], None]) -> list[bool]:
    """``images``/<name> and, of photos with pixels to ignore, ``masks``/<name>.png; returns which have a mask.

    Masks are 255 use, 0 ignore, named as COLMAP wants them.
    """
    has_mask = []
    for index, name in enumerate(names):
        picture = folder / "images" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        rgb = posed_images.read_photo(run, index)
        Image.fromarray(rgb).save(picture, "JPEG", quality=EXPORT_JPEG_QUALITY, subsampling=0)
        mask = posed_images.read_mask(run, index)
        has_mask.append(bool((mask == 0).any()))
        if has_mask[-1]:
            path = folder / "masks" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path, "PNG")
        advance(index + 1)
    return has_mask
