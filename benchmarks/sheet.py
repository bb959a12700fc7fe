"""A contact sheet: photos that were held out, and what each method makes of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

Array = np.ndarray
CELL_PX, TITLE_PX = 240, 16  # width of a picture, height of the line above
MAX_SHEET_BYTES = 250_000
N_PANELS = 4  # of a picture in views/: photo, colour, normals, depth


def split_panels(picture: Path) -> list[UInt8[Array, "h w 3"]]:
    """Photo, colour, normals and depth of a picture that ``quoin evaluate --views`` made."""
    return np.split(np.asarray(Image.open(picture).convert("RGB")), N_PANELS, axis=1)


def contact_sheet(titles: Sequence[str], rows: Sequence[Sequence[UInt8[Array, "h w 3"]]]) -> UInt8[Array, "h w 3"]:
    """Pictures in rows under their titles, all scaled to one width."""
    row_heights = [max(round(p.shape[0] * CELL_PX / p.shape[1]) for p in row) for row in rows]
    sheet = Image.new("RGB", (CELL_PX * len(titles), TITLE_PX + sum(row_heights)), "white")
    for column, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((CELL_PX * column + 4, 2), title, fill="black")
    for row, top in zip(rows, TITLE_PX + np.cumsum([0, *row_heights[:-1]]), strict=True):
        for column, rgb in enumerate(row):
            height = round(rgb.shape[0] * CELL_PX / rgb.shape[1])
            resized = Image.fromarray(rgb).resize((CELL_PX, height), Image.Resampling.LANCZOS)
            sheet.paste(resized, (CELL_PX * column, int(top)))
    return np.asarray(sheet)


def encode_jpeg(rgb: UInt8[Array, "h w 3"], max_bytes: int = MAX_SHEET_BYTES) -> bytes:
    """The best JPEG of at most so many bytes; the smallest where none is small enough."""
    for quality in range(90, 5, -5):
        stream = io.BytesIO()
        Image.fromarray(rgb).save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= max_bytes:
            break
    return stream.getvalue()
