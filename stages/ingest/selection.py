"""Selection of the readable photos to use, and their camera groups.

Left out are duplicates, panoramas, and photos far more blurred than the others. ``rows`` are rows of the photo table;
those of photos not to use are replaced by rejected ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.scene.photo_table import PhotoRow, load_photo
from quoin.stages.ingest.duplicates import find_near_duplicates, is_same_picture, texture_pyramid
from quoin.stages.ingest.exif import Exif
from quoin.stages.ingest.photo_file import ImageSignature, gray_thumbnail

Array = np.ndarray

SUFFICIENT_PHOTO_SHARPNESS = 0.07  # edges can still be located; photos above it are used, whatever the median
MIN_PHOTOS_FOR_MEDIAN = 5  # with fewer the median means little
TEXTURE_CACHE_PHOTOS = 64  # photos in memory for comparisons, a megabyte each
FOCAL_TOLERANCE = 0.01
BRACKET_PHOTOS = 5  # around a photo, whose median exposure is the metered one: brackets have three or five


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


def find_too_wide(sizes: Sequence[tuple[int, int]], max_aspect: float) -> list[bool]:
    """Mask of the photos longer than ``max_aspect`` times their short side; none if most are, as with some cameras."""
    wide = [max(size) > max_aspect * min(size) for size in sizes]
    return wide if 2 * int(np.sum(wide)) <= len(wide) else [False] * len(wide)


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


def exposure_offsets_ev(exifs: Sequence[Exif]) -> list[float]:
    """Stops by which each photo is exposed above or below what the camera metered; 0 where EXIF does not tell.

    Where the photos around have one bias, as those of brackets by hand do, the exposure against the median of theirs.
    """
    offsets = []
    for i, exif in enumerate(exifs):
        start = max(0, min(i - BRACKET_PHOTOS // 2, len(exifs) - BRACKET_PHOTOS))
        around = exifs[start : start + BRACKET_PHOTOS]
        biases = {e.exposure_bias_ev for e in around if not math.isnan(e.exposure_bias_ev)}
        exposures = [e.exposure_ev for e in around if not math.isnan(e.exposure_ev)]
        by_exposure = exif.exposure_ev - float(np.median(exposures)) if exposures else 0.0
        offset = exif.exposure_bias_ev if len(biases) > 1 else by_exposure
        offsets.append(0.0 if math.isnan(offset) else offset)
    return offsets


def drop_near_duplicates(
    rows: list[PhotoRow],
    signatures: Sequence[ImageSignature | None],
    offsets_ev: Sequence[float],
    n_bytes: Sequence[int],
    advance: Callable[[float], None],
) -> None:
    """Reject all but the best of photos that are one picture saved in several ways, or exposed in several ways.

    The best has a mask, then the most pixels, then a known focal length, then the exposure nearest to the metered one,
    then the largest file.
    """
    used = [i for i, row in enumerate(rows) if row.used and signatures[i] is not None]

    def quality(i: int) -> tuple[bool, int, bool, float, int, int]:
        row = rows[i]
        has_focal = not math.isnan(row.focal_px)
        off_ev = round(abs(offsets_ev[i]), 1)  # brackets a tenth of a stop apart are none
        return (bool(row.mask_path), row.width * row.height, has_focal, -off_ev, n_bytes[i], -i)

    @lru_cache(TEXTURE_CACHE_PHOTOS)
    def textures(i: int) -> list[Float32[Array, "_ _"]]:
        return texture_pyramid(gray_thumbnail(load_photo(rows[i])))

    def is_same(first_photo: int, second_photo: int) -> bool:
        try:
            return is_same_picture(textures(first_photo), textures(second_photo))
        except QuoinError:  # it could be read before; the stage that reads it next reports it
            return False

    bits = {i: signature.bits for i in used if (signature := signatures[i]) is not None}
    best_first = sorted(used, key=quality, reverse=True)
    for i, original in find_near_duplicates(bits, best_first, is_same, advance).items():
        rows[i] = rows[i].rejected(Reason.NEAR_DUPLICATE, f"the same picture as {rows[original].name}")


def camera_groups(kinds: Sequence[Hashable], focals: Sequence[float]) -> list[int]:
    """Group number of every photo, counted in order of first appearance.

    Photos share a group if their kind (folder, size, camera) is equal and their focal lengths lie within 1 % of the
    group's smallest. Photos of unknown focal length (NaN) form groups of their own.
    """
    by_focal = sorted(range(len(kinds)), key=lambda i: (math.isnan(focals[i]), focals[i], i))
    anchors: dict[Hashable, float] = {}
    keys: dict[int, Hashable] = {}
    for i in by_focal:
        kind, focal = kinds[i], focals[i]
        anchor = anchors.get(kind)
        if math.isnan(focal):
            keys[i] = (kind, None)
            continue
        if anchor is None or focal > anchor * (1 + FOCAL_TOLERANCE):
            anchor = anchors[kind] = focal
        keys[i] = (kind, anchor)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(keys[i], len(numbers)) for i in range(len(kinds))]
