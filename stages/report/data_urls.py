"""Pictures as data URIs, which a page contains itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8

Array = np.ndarray


def jpeg_uri(rgb: UInt8[Array, "h w 3"]) -> str:
    """A photo-like picture as a JPEG data URI."""
    return _uri(rgb, "jpeg", quality=84, optimize=True)


def png_uri(rgba: UInt8[Array, "h w 4"]) -> str:
    """A drawing with transparency as a PNG data URI."""
    return _uri(rgba, "png", optimize=True)


def _uri(pixels: Array, kind: str, **options: object) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
