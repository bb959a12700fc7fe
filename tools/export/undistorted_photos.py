"""Writer of undistorted photos and their masks as image files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from PIL import Image

from quoin.pipeline.core.events import Advance
from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage.run import Run

EXPORT_JPEG_QUALITY = 95


def jpeg_names(names: list[str]) -> list[str]:
    """A JPEG name per photo: its own with suffix .jpg, or with .jpg appended where that would not be unique."""
    short = [str(PurePosixPath(name).with_suffix(".jpg")) for name in names]
    count = Counter(name.lower() for name in short)  # some file systems ignore case
    return [s if count[s.lower()] == 1 else f"{name}.jpg" for s, name in zip(short, names, strict=True)]


def export_photos(run: Run, folder: Path, names: list[str], advance: Advance) -> list[bool]:
    """Write ``images``/<name> and, for photos with masked pixels, ``masks``/<name>.png; returns which have a mask.

    In masks 255 is used and 0 ignored; they are named as COLMAP expects.
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
