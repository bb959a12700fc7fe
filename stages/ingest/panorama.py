"""Detection of panoramas, which are no pinhole images."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

_PROJECTION = re.compile(rb"GPano:ProjectionType\s*(?:=\s*[\"']|>)\s*(\w+)")
_APPLE_PANORAMA = 6  # CustomRendered of iPhones


def read_panorama_tag(image: Image.Image) -> str:
    """The kind of panorama in the file's metadata (GPano in XMP, or EXIF of iPhones); "" where it has none."""
    with contextlib.suppress(Exception):  # corrupt metadata is no reason to lose a photo
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        match = _PROJECTION.search(xmp.encode() if isinstance(xmp, str) else xmp)
        if match and match[1].lower() != b"perspective":
            return match[1].decode("ascii", "ignore").lower()
    with contextlib.suppress(Exception):
        exif = image.getexif()
        if exif.get(Base.Make) == "Apple" and exif.get_ifd(IFD.Exif).get(Base.CustomRendered) == _APPLE_PANORAMA:
            return "panorama"
    return ""


def find_too_wide(sizes: Sequence[tuple[int, int]], max_aspect: float) -> list[bool]:
    """Mask of the photos longer than ``max_aspect`` times their short side; none if most are, as with some cameras."""
    wide = [max(size) > max_aspect * min(size) for size in sizes]
    return wide if 2 * int(np.sum(wide)) <= len(wide) else [False] * len(wide)
