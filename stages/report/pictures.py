"""Pictures that the page contains itself: SVG elements, pixels as data URIs, and previews that training saved.

Every text and attribute of an SVG element is escaped by construction.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup, escape

from quoin.pipeline.storage.run import Run

Array = np.ndarray
MAX_PREVIEWS, MAX_PREVIEWS_PER_BLOCK = 40, 4  # pictures in the page, and of one block


def svg_tag(name: str, *children: str, **attributes: object) -> Markup:
    """``<name key="value">children</name>``; a child that is no Markup is escaped text.

    Attributes: ``class_`` is written ``class``, other underscores become hyphens, floats get two decimals.
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_text(v))}"' for key, v in attributes.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # noqa: S704 - all parts are escaped above


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def format_points(*points: Sequence[float]) -> str:
    """Corner points as the ``points`` of a polyline or polygon."""
    return " ".join(",".join(_text(float(v)) for v in point) for point in points)


# -- data URIs ---------------------------------------------------------------------------------------------------------


def jpeg_uri(rgb: UInt8[Array, "h w 3"]) -> str:
    """A photo-like picture as a JPEG data URI."""
    return _encode(rgb, "jpeg", quality=84, optimize=True)


def png_uri(rgba: UInt8[Array, "h w 4"]) -> str:
    """A drawing with transparency as a PNG data URI."""
    return _encode(rgba, "png", optimize=True)


def _encode(pixels: Array, kind: str, **options: object) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind.upper(), **options)
    return _data_uri(buffer.getvalue(), kind)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# -- previews that training saved --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preview:
    """A photo, its rendering and the normals, side by side, after so many steps."""

    step: int
    uri: str


def read_previews(run: Run, block_ids: Sequence[str]) -> dict[str, list[Preview]]:
    """Previews by block, always with its last; of many blocks only those of the first ones."""
    n_per_block = min(MAX_PREVIEWS_PER_BLOCK, max(1, MAX_PREVIEWS // max(len(block_ids), 1)))
    out = {}
    for block_id in block_ids[:MAX_PREVIEWS]:
        files = run.files(f"work/blocks/{block_id}/preview")
        previews = sorted((int(path.stem), path) for path in files if path.suffix == ".jpg" and path.stem.isdigit())
        n = min(n_per_block, len(previews))
        chosen = [previews[len(previews) - 1 - len(previews) * k // n] for k in range(n)][::-1]
        if chosen:
            out[block_id] = [Preview(step, _data_uri(path.read_bytes(), "jpeg")) for step, path in chosen]
    return out
