"""Near duplicates among many photos, without comparing all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from quoin.stages.ingest.perceptual_hash import HASH_BITS

# bits of 64 that two hashes of one picture may differ in; pictures of different things differ in more
MAX_HASH_DISTANCE = 14
N_HASH_BANDS = 4
BAND_BITS = HASH_BITS // N_HASH_BANDS
MAX_CANDIDATES = 6  # nearest hashes whose pictures are compared

_FLIPS = [sum(1 << bit for bit in bits) for n in range(3) for bits in itertools.combinations(range(BAND_BITS), n)]


class HashIndex:
    """Photos by their perceptual hash, to find those with nearly the same (multi-index hashing, Norouzi et al. 2012).

    Hashes are looked up by bands of 16 bits with at most 2 bits flipped: that finds all within 11 bits of 64, and most
    within 14.
    """

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}
        self._photos_by_band: list[dict[int, list[int]]] = [{} for _ in range(N_HASH_BANDS)]

    def add(self, photo: int, bits: int) -> None:
        """Put a photo in."""
        self._bits[photo] = bits
        for photos_by_key, key in zip(self._photos_by_band, _band_keys(bits), strict=True):
            photos_by_key.setdefault(key, []).append(photo)

    def nearest(self, bits: int) -> list[int]:
        """At most MAX_CANDIDATES photos within MAX_HASH_DISTANCE of a hash, the nearest first."""
        candidates: set[int] = set()
        for photos_by_key, key in zip(self._photos_by_band, _band_keys(bits), strict=True):
            for flip in _FLIPS:
                candidates.update(photos_by_key.get(key ^ flip, ()))
        distances = sorted(((bits ^ self._bits[photo]).bit_count(), photo) for photo in candidates)
        return [photo for distance, photo in distances if distance <= MAX_HASH_DISTANCE][:MAX_CANDIDATES]


def _band_keys(bits: int) -> list[int]:
    return [(bits >> (band * BAND_BITS)) & ((1 << BAND_BITS) - 1) for band in range(N_HASH_BANDS)]


def find_near_duplicates(
    bits: Mapping[int, int],
    best_first: Sequence[int],
    is_same: Callable[[int, int], bool],
    advance: Callable[[float], None] = lambda done: None,
) -> dict[int, int]:
    """Photo -> the better photo that shows the same picture, which is kept.

    ``bits`` are hashes by photo, ``best_first`` orders the photos. Each is compared by ``is_same`` with the nearest few
    of those kept so far: in a slow film, each frame that is kept has moved against all before it.
    """
    kept = HashIndex()
    better_photo: dict[int, int] = {}
    for done, photo in enumerate(best_first, 1):
        original = next((candidate for candidate in kept.nearest(bits[photo]) if is_same(candidate, photo)), None)
        if original is None:
            kept.add(photo, bits[photo])
        else:
            better_photo[photo] = original
        advance(done)
    return better_photo
