"""Near duplicates among many photos, without comparing all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from quoin.stages.ingest.perceptual_hash import HASH_BITS

MAX_HASH_DISTANCE = (
    14  # bits of 64 that two hashes of one picture may differ in; pictures of different things differ in more
)
N_HASH_BANDS = 4
BAND_BITS = HASH_BITS // N_HASH_BANDS
MAX_CANDIDATES = 6  # nearest hashes that are looked at closely

_FLIPS = [sum(1 << bit for bit in bits) for n in range(3) for bits in itertools.combinations(range(BAND_BITS), n)]


def find_near_duplicates(
    bits: Mapping[int, int],
    best_first: Sequence[int],
    is_same: Callable[[int, int], bool],
    advance: Callable[[float], None] = lambda done: None,
) -> dict[int, int]:
    """Photo -> the better photo that shows the same picture, which is kept.

    ``bits`` are hashes by photo, ``best_first`` orders the photos. Each is compared by ``is_same`` with the nearest few
    of those kept so far: of a slow film, each frame that is kept has moved against all before it. Hashes are found by
    bands of 16 bits with at most 2 flipped (multi-index hashing, Norouzi et al. 2012): all within 11 bits, most within
    14.
    """
    index: list[dict[int, list[int]]] = [{} for _ in range(N_HASH_BANDS)]
    dropped: dict[int, int] = {}
    for done, photo in enumerate(best_first, 1):
        keys = [(bits[photo] >> (band * BAND_BITS)) & ((1 << BAND_BITS) - 1) for band in range(N_HASH_BANDS)]
        candidates = {
            other
            for table, key in zip(index, keys, strict=True)
            for flip in _FLIPS
            for other in table.get(key ^ flip, ())
        }
        distances = sorted(((bits[photo] ^ bits[other]).bit_count(), other) for other in candidates)
        nearest = [other for distance, other in distances if distance <= MAX_HASH_DISTANCE][:MAX_CANDIDATES]
        original = next((other for other in nearest if is_same(other, photo)), None)
        advance(done)
        if original is not None:
            dropped[photo] = original
            continue
        for table, key in zip(index, keys, strict=True):
            table.setdefault(key, []).append(photo)
    return dropped
