"""One file: content hash, contrast, and how many pixels are held at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from quoin.pipeline.imaging.memory_budget import PixelBudget
from quoin.stages.ingest.photo_file import content_hash, photo_contrast
from tests.fixtures.image_files import picture


def test_the_hash_is_of_pixels_and_their_arrangement():
    one = picture(1)
    assert content_hash(one) == content_hash(one.copy())
    assert content_hash(one) != content_hash(picture(2))
    assert content_hash(one) != content_hash(one.reshape(144, 96, 3))  # the same bytes
    other = one.copy()
    other[50, 50, 1] ^= 1
    assert content_hash(one) != content_hash(other)


def test_contrast_sees_structure_and_not_noise():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 16, (1024, 1024, 3)).astype(np.uint8)
    assert photo_contrast(noise) < 1 < noise.std()
    halves = np.zeros((1024, 1024, 3), np.uint8)
    halves[:, 512:] = 200
    assert abs(photo_contrast(halves) - 100) < 1  # half 0, half 200: standard deviation 100
    assert photo_contrast(picture(0, 1024, 1024)) > 10
    assert photo_contrast(np.full((3, 5, 3), 77, np.uint8)) == 0


def test_threads_never_hold_more_than_the_budget_but_one_may_alone():
    budget, lock = PixelBudget(100), threading.Lock()
    held: list[int] = []
    seen: list[list[int]] = []

    def work(pixels: int) -> None:
        with budget.reserve(pixels):
            with lock:
                held.append(pixels)
                seen.append(list(held))
            time.sleep(0.001)
            with lock:
                held.remove(pixels)

    sizes = [int(n) for n in np.random.default_rng(0).integers(10, 60, 60)] + [500, 100, 101]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, sizes))
    assert len(seen) == len(sizes)
    assert all(sum(together) <= 100 or len(together) == 1 for together in seen)
    assert max(len(together) for together in seen) > 1
