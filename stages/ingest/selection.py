"""Selection of the readable photos to use: no duplicates, no panoramas, none far more blurred than the others.

``rows`` are rows of the photo table; those of photos not to use are replaced by rejected ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.imaging.io import load_upright
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.ingest.duplicates import is_same_picture, texture_pyramid
from quoin.stages.ingest.near_duplicates import find_near_duplicates
from quoin.stages.ingest.panorama import find_too_wide
from quoin.stages.ingest.perceptual_hash import ImageSignature, gray_thumbnail

Array = np.ndarray

SUFFICIENT_PHOTO_SHARPNESS = 0.07  # edges can still be located; photos above it are used, whatever the median
MIN_PHOTOS_FOR_MEDIAN = 5  # with fewer the median means little
TEXTURE_CACHE_PHOTOS = 64  # photos in memory for comparisons, a megabyte each


def drop_duplicates(rows: list[PhotoRow]) -> None:
    """Reject photos with the same pixels as an earlier one."""
    first: dict[str, str] = {}
    for i, row in enumerate(rows):
        if row.used and (name := first.setdefault(row.content_hash, row.name)) != row.name:
            rows[i] = row.rejected(Reason.DUPLICATE, f"same pixels as {name}")


def drop_panoramas(rows: list[PhotoRow], max_aspect: float) -> None:
    """Reject photos longer than ``max_aspect`` times their short side, unless most photos are."""
    used = [i for i, row in enumerate(rows) if row.used]
    is_wide = find_too_wide([(rows[i].width, rows[i].height) for i in used], max_aspect)
    for i in itertools.compress(used, is_wide):
        detail = f"{rows[i].width} x {rows[i].height} pixels are more than one lens takes in"
        rows[i] = rows[i].rejected(Reason.PANORAMA, detail)


def drop_blurred(rows: list[PhotoRow], signatures: Sequence[ImageSignature | None], min_sharpness: float) -> None:
    """Reject blurred photos that are also less sharp than ``min_sharpness`` times the median photo."""
    sharpness = {
        i: signature.sharpness
        for i, signature in enumerate(signatures)
        if rows[i].used and signature is not None and not math.isnan(signature.sharpness)
    }
    if len(sharpness) < MIN_PHOTOS_FOR_MEDIAN:
        return
    limit = min(SUFFICIENT_PHOTO_SHARPNESS, min_sharpness * float(np.median(list(sharpness.values()))))
    for i, value in sharpness.items():
        if value < limit:
            rows[i] = rows[i].rejected(Reason.BLURRED, "far less sharp than the other photos")


def drop_near_duplicates(
    rows: list[PhotoRow],
    signatures: Sequence[ImageSignature | None],
    n_bytes: Sequence[int],
    advance: Callable[[float], None],
) -> None:
    """Reject all but the best of photos that are one picture saved in several ways.

    The best has a mask, then the most pixels, then a known focal length, then the largest file.
    """
    used = [i for i, row in enumerate(rows) if row.used and signatures[i] is not None]

    def quality(i: int) -> tuple[bool, int, bool, int, int]:
        row = rows[i]
        has_focal = not math.isnan(row.focal_px)
        return (bool(row.mask_path), row.width * row.height, has_focal, n_bytes[i], -i)

    @lru_cache(TEXTURE_CACHE_PHOTOS)
    def textures(i: int) -> list[Float32[Array, "_ _"]]:
        return texture_pyramid(gray_thumbnail(load_upright(Path(rows[i].path))))

    def is_same(first_photo: int, second_photo: int) -> bool:
        try:
            return is_same_picture(textures(first_photo), textures(second_photo))
        except QuoinError:  # it could be read before; the stage that reads it next reports it
            return False

    bits = {i: signature.bits for i in used if (signature := signatures[i]) is not None}
    best_first = sorted(used, key=quality, reverse=True)
    for i, original in find_near_duplicates(bits, best_first, is_same, advance).items():
        rows[i] = rows[i].rejected(Reason.NEAR_DUPLICATE, f"the same picture as {rows[original].name}")
