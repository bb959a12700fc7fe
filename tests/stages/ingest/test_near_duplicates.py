"""Near duplicates by hash: which are compared, and which stay."""

from __future__ import annotations

import numpy as np

from quoin.stages.ingest.near_duplicates import MAX_CANDIDATES, MAX_HASH_DISTANCE, find_near_duplicates


def hashes(count: int, seed: int = 0) -> list[int]:
    return [int(h) for h in np.random.default_rng(seed).integers(0, 2**63, count, dtype=np.uint64)]


def flipped(bits: int, which: list[int]) -> int:
    for bit in which:
        bits ^= 1 << int(bit)
    return bits


def test_every_hash_within_eleven_bits_is_found():
    rng = np.random.default_rng(1)
    base = hashes(1)[0]
    for _ in range(200):
        other = flipped(base, rng.choice(64, 11, replace=False))
        assert find_near_duplicates({0: base, 1: other}, [0, 1], lambda a, b: True) == {1: 0}
    far = flipped(base, list(range(MAX_HASH_DISTANCE + 1)))
    assert find_near_duplicates({0: base, 1: far}, [0, 1], lambda a, b: True) == {}


def test_work_grows_with_the_number_of_photos_only():
    """3000 photos that look different and 300 copies: hardly more comparisons than copies."""
    own = hashes(3000)
    bits = dict(enumerate(own + [flipped(h, [3, 30, 60]) for h in own[:300]]))
    asked = []

    def same(one: int, other: int) -> bool:
        asked.append((one, other))
        return other - one == 3000

    assert find_near_duplicates(bits, range(3300), same) == {3000 + i: i for i in range(300)}
    assert 300 <= len(asked) < 350


def test_a_still_camera_costs_one_comparison_a_frame():
    asked = []
    dropped = find_near_duplicates(dict.fromkeys(range(500), 77), range(500), lambda a, b: asked.append(b) is None)
    assert dropped == dict.fromkeys(range(1, 500), 0)
    assert len(asked) == 499


def test_photos_of_one_look_but_different_cost_a_few_comparisons_each():
    asked = []
    assert find_near_duplicates(dict.fromkeys(range(50), 77), range(50), lambda a, b: asked.append(b) is not None) == {}
    assert len(asked) <= 50 * MAX_CANDIDATES


def test_of_a_slow_film_each_frame_kept_has_moved_against_all_others_kept():
    """Neighbours are alike, frames three apart are not: a chain must not be drawn together."""
    dropped = find_near_duplicates(dict.fromkeys(range(12), 5), range(12), lambda a, b: abs(a - b) < 3)
    kept = [i for i in range(12) if i not in dropped]
    assert kept == [0, 3, 6, 9]
    assert all(abs(i - twin) < 3 and twin in kept for i, twin in dropped.items())


def test_the_better_photo_stays():
    assert find_near_duplicates({4: 1, 9: 1, 2: 3}, [9, 2, 4], lambda a, b: True) == {2: 9, 4: 9}
