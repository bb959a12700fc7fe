"""Proposed pairs, and whether retrieval finds what looks alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.pose.pairs import consecutive, exhaustive, nearest, unique_pairs
from stages.pose.retrieval import assign, codebook, look_alikes, vlad


@given(st.integers(0, 45))
def test_exhaustive_is_every_pair_once(n: int) -> None:
    pairs = exhaustive(n)
    assert len(pairs) == n * (n - 1) // 2
    assert len(unique_pairs(pairs)) == len(pairs)


def test_unique_pairs_orders_and_drops_self() -> None:
    assert unique_pairs(np.array([[3, 1], [1, 3], [2, 2], [0, 1]])).tolist() == [[0, 1], [1, 3]]


def test_nearest_leaves_unknown_positions_out() -> None:
    positions = np.array([[0.0, 0], [1, 0], [np.nan, np.nan], [10, 0], [11, 0]])
    assert nearest(positions, 1).tolist() == [[0, 1], [3, 4]]
    assert nearest(positions[:1], 3).shape == (0, 2)


def test_consecutive_window() -> None:
    assert consecutive(4, 2).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


def test_codebook_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 255, (5, 16)).astype(np.float32)
    data = (truth[rng.integers(0, 5, 2000)] + rng.normal(0, 1, (2000, 16))).astype(np.float32)
    centers = codebook(data, 12, seed=1)
    distance = np.linalg.norm(truth[:, None] - centers[None], axis=2).min(axis=1)
    assert distance.max() < 2.0
    assert assign(centers, centers).tolist() == list(range(12))


def test_vlad_is_of_unit_length_and_empty_photos_are_zero() -> None:
    centers = np.eye(4, dtype=np.float32) * 100
    assert np.linalg.norm(
        vlad(np.random.default_rng(0).uniform(0, 99, (30, 4)).astype(np.float32), centers)
    ) == pytest.approx(1)
    assert not vlad(np.zeros((0, 4), np.float32), centers).any()


def test_photos_of_one_place_find_each_other() -> None:
    """Forty photos of eight places that share most of their descriptors; one photo has none."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 120, (8, 300, 32))
    photos = []
    for i in range(40):
        seen = places[i % 8][rng.choice(300, 200, replace=False)]
        clutter = rng.integers(0, 120, (100, 32))
        photos.append(
            np.clip(np.concatenate([seen, clutter]) + rng.integers(-6, 7, (300, 32)), 0, 255).astype(np.uint8)
        )
    photos[39] = np.zeros((0, 32), np.uint8)
    pairs = look_alikes(photos.__getitem__, 40, neighbours=3, seed=1)
    pairs = pairs[(pairs != 39).all(axis=1)]
    same = pairs[:, 0] % 8 == pairs[:, 1] % 8
    assert same.mean() > 0.9
