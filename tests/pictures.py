"""Small pictures and hostile files for tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

UNDO = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that turns upright pixels into stored ones


def picture(seed: int = 0, height: int = 96, width: int = 144) -> np.ndarray:
    """Random blocks of 8 px: no turn maps it onto itself, JPEG keeps it, every seed gives another."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(20, 236, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def save(path: Path, stored: np.ndarray, orientation: int = 1, exif: Image.Exif | None = None, **options: Any) -> Path:
    """Write stored pixels with an EXIF orientation, and whatever else is in ``exif``."""
    image, exif = Image.fromarray(stored), Image.Exif() if exif is None else exif  # an Exif may be falsy
    exif[0x0112] = orientation
    if path.suffix == ".heic":
        image.info["exif"] = exif.tobytes()  # from here pillow-heif also writes the box that turns the pixels
        image.save(path, quality=100, chroma=444, **options)
    else:
        image.save(path, exif=exif, **options)
    return path


def bomb_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
