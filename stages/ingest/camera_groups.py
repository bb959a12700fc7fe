"""Camera groups: photos that one camera at one zoom setting may have taken, which may share intrinsics."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

FOCAL_TOLERANCE = 0.01


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
