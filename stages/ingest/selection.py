"""Which readable photos are used: of one picture the best file, no panorama, none far more blurred than the others.

``rows`` are rows of the photo table; what is not to be used is marked there, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.imaging.io import load_upright
from quoin.stages.ingest.duplicates import details, same_picture
from quoin.stages.ingest.near_duplicates import near_duplicates
from quoin.stages.ingest.panorama import too_wide
from quoin.stages.ingest.perceptual_hash import Look, grey_copy

Array = np.ndarray
Row = dict[str, Any]

SHARP_ENOUGH = 0.07  # sharpness at which edges still tell where they are, whatever the other photos can
MIN_COMPARED = 5  # photos; among fewer it cannot be told what is usual
HELD = 64  # photos whose details are kept while others are compared with them: a megabyte each


def drop_duplicates(rows: list[Row]) -> None:
    """Of photos with equal pixels the first stays."""
    first: dict[str, str] = {}
    for row in rows:
        if row["used"] and (name := first.setdefault(row["content_hash"], row["name"])) != row["name"]:
            _drop(row, f"duplicate: same pixels as {name}")


def drop_panoramas(rows: list[Row], max_aspect: float) -> None:
    """Photos longer than ``max_aspect`` times their short side go, unless most are."""
    used = [row for row in rows if row["used"]]
    for row, wide in zip(used, too_wide([(r["width"], r["height"]) for r in used], max_aspect), strict=True):
        if wide:
            _drop(row, f"panorama: {row['width']} x {row['height']} pixels are more than one lens takes in")


def drop_blurred(rows: list[Row], looks: Sequence[Look | None], min_sharpness: float) -> None:
    """Photos go that are blurred by themselves, and less sharp than ``min_sharpness`` times the median photo."""
    told = [(r, look.sharpness) for r, look in zip(rows, looks, strict=True) if r["used"] and look is not None]
    told = [(row, value) for row, value in told if not math.isnan(value)]
    if len(told) < MIN_COMPARED:
        return
    limit = min(SHARP_ENOUGH, min_sharpness * float(np.median([value for _, value in told])))
    for row, value in told:
        if value < limit:
            _drop(row, "blurred: far less sharp than the other photos")


def drop_near_duplicates(
    rows: list[Row], looks: Sequence[Look | None], n_bytes: Sequence[int], advance: Callable[[float], None]
) -> None:
    """Of photos that are one picture saved in several ways the best stays: one with a mask, then the largest, then one
    that knows its focal length, then the least compressed.
    """
    used = [i for i, row in enumerate(rows) if row["used"] and looks[i] is not None]

    def worth(i: int) -> tuple[bool, int, bool, int, int]:
        row = rows[i]
        known = not math.isnan(row["focal_px"])
        return (bool(row["mask_path"]), row["width"] * row["height"], known, n_bytes[i], -i)

    @lru_cache(HELD)
    def seen(i: int) -> list[Float32[Array, "_ _"]]:
        return details(grey_copy(load_upright(Path(rows[i]["path"]))))

    def same(one: int, other: int) -> bool:
        try:
            return same_picture(seen(one), seen(other))
        except QuoinError:  # it was readable a moment ago: whoever reads it next will say so
            return False

    bits = {i: look.bits for i in used if (look := looks[i]) is not None}
    best_first = sorted(used, key=worth, reverse=True)
    for i, twin in near_duplicates(bits, best_first, same, advance).items():
        _drop(rows[i], f"near duplicate: the same picture as {rows[twin]['name']}")


def _drop(row: Row, reason: str) -> None:
    row.update(used=False, reason=reason)
