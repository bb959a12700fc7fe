"""Pairs of which something is known before anything is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from benchmarks.walk import SimulatedWalk, simulate_walk
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.colmap.database import DescriptorReader
from quoin.stages.pose.pairing.pairs import (
    EXPANSION,
    NO_PAIRS_TRIED,
    clip_pairs,
    exhaustive_pairs,
    expected_similarity,
    first_round_pairs,
    match_in_rounds,
    nearest_pairs,
    next_round_pairs,
    quadratic_overlap_pairs,
    sequential_pairs,
    unique_pairs,
    window_pairs,
)
from quoin.stages.pose.pairing.retrieval import photo_similarity
from quoin.stages.pose.sfm import initial_cameras

COUNT, MOST = 80, 60


@given(st.integers(0, 45))
def test_exhaustive_is_every_pair_once(n: int) -> None:
    pairs = exhaustive_pairs(n)
    assert len(pairs) == n * (n - 1) // 2
    assert len(unique_pairs(pairs)) == len(pairs)


def photo(**columns: Any) -> PhotoRow:
    return PhotoRow("a.jpg", "/a.jpg", width=400, height=300, **columns)


def test_unique_pairs_orders_and_drops_self() -> None:
    assert unique_pairs(np.array([[3, 1], [1, 3], [2, 2], [0, 1]])).tolist() == [[0, 1], [1, 3]]


def test_nearest_leaves_unknown_positions_out() -> None:
    positions = np.array([[0.0, 0], [1, 0], [np.nan, np.nan], [10, 0], [11, 0]])
    assert nearest_pairs(positions, 1).tolist() == [[0, 1], [3, 4]]
    assert nearest_pairs(positions[:1], 3).shape == (0, 2)


def test_consecutive_window() -> None:
    assert window_pairs(4, 2).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


def test_photos_follow_each_other_by_name_and_by_time_within_an_hour() -> None:
    times = ["2020-05-01T12:00:00", "", "2020-05-01T12:59:00.25", "2020-05-01T12:10:00", "2020-05-01T14:30:00"]
    by_name = {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert {tuple(pair) for pair in sequential_pairs([photo(taken_at=time) for time in times]).tolist()} == by_name | {
        (0, 3)
    }


def test_frames_are_paired_in_doubling_steps_within_their_clip() -> None:
    assert {(a, b) for a, b in quadratic_overlap_pairs(6, 4).tolist()} == {
        (a, b) for a in range(6) for b in range(6) if b - a in (1, 2, 4)
    }
    assert quadratic_overlap_pairs(1, 8).shape == (0, 2)
    photos = [photo()]
    photos += [photo(clip="a.mp4", time_s=3.0 - i) for i in range(3)]  # rows are not in order of time
    photos += [photo(clip="b.mp4", time_s=float(i)) for i in range(2)]
    assert clip_pairs(photos).tolist() == [[1, 2], [1, 3], [2, 3], [4, 5]]
    assert clip_pairs(photos[:1]).shape == (0, 2)


def test_photos_of_a_clip_keep_one_camera() -> None:
    """Where one camera explains photos badly each gets its own, but those that a clip ties together."""
    photos = [photo(photo_id=i, clip="a.mp4" if i < 3 else "", group=int(i >= 3)) for i in range(5)]
    assert initial_cameras(photos)[1] == [0, 0, 0, 1, 1]
    assert initial_cameras(photos, share=False)[1] == [0, 0, 0, 1, 2]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulatedWalk, csr_array]:
    database: Path = tmp_path_factory.mktemp("walk") / "database.db"
    made = simulate_walk(COUNT, database, seed=1)
    reader = DescriptorReader(database)
    alike = photo_similarity(reader, COUNT, 40, seed=0)
    reader.close()
    return made, alike


def as_set(pairs: np.ndarray) -> set:
    return {tuple(sorted(pair)) for pair in pairs.tolist()}


def test_rounds_find_a_walk_in_few_pairs(walk: tuple[SimulatedWalk, csr_array]) -> None:
    made, alike = walk
    truth = as_set(made.all_verified())
    tried = match_in_rounds(alike, first_round_pairs(alike), MOST, lambda pairs, number: made.verified(pairs))
    found = as_set(tried.pairs)
    assert len(found) == len(tried.pairs)
    assert len(truth & found) / len(truth) > 0.9
    assert len(found) < 0.4 * COUNT * (COUNT - 1) / 2
    np.testing.assert_array_equal(tried.verified, made.verified(tried.pairs))
    one_round = as_set(first_round_pairs(alike))
    assert len(truth & one_round) / len(truth) < 0.6


def test_no_photo_is_in_more_pairs_than_allowed(walk: tuple[SimulatedWalk, csr_array]) -> None:
    made, alike = walk
    tried = match_in_rounds(alike, first_round_pairs(alike)[:0], 6, lambda pairs, number: made.verified(pairs))
    assert len(tried.pairs) == 0  # nothing to begin with: nothing learnt, and no round follows
    begin = np.array([[0, 1]])
    tried = match_in_rounds(alike, begin, 6, lambda pairs, number: np.ones(len(pairs), bool))
    assert np.bincount(tried.pairs.ravel()).max() == 6


def matrix(count: int, entries: dict[tuple[int, int], float]) -> csr_array:
    dense = np.zeros((count, count), np.float32)
    for (a, b), value in entries.items():
        dense[a, b] = dense[b, a] = value
    return csr_array(dense)


def test_a_partners_partner_is_found_though_it_looks_unlike() -> None:
    """0 and 2 have nothing in common that can be seen, but both match 1."""
    alike = matrix(4, {(0, 1): 0.3, (1, 2): 0.3, (2, 3): 0.01})
    tried = NO_PAIRS_TRIED.with_round(np.array([[0, 1], [1, 2]]), np.array([True, True]))
    assert (0, 2) in as_set(next_round_pairs(alike, tried, MOST))
    refuted = NO_PAIRS_TRIED.with_round(np.array([[0, 1], [1, 2]]), np.array([False, False]))
    assert (0, 2) not in as_set(next_round_pairs(alike, refuted, MOST))


def test_expectations_are_what_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    dense = np.triu(rng.uniform(0, 1, (7, 7)), 1)
    dense += dense.T
    partner = np.triu(rng.random((7, 7)) < 0.4, 1).astype(float)
    partner += partner.T
    degree = np.maximum(partner.sum(axis=1), 1)
    mean_of, usual = partner / degree[:, None], dense[partner > 0].mean()
    common = partner @ partner / np.sqrt(np.outer(degree, degree))
    expected = dense + 0.25 * (mean_of @ dense + dense @ mean_of.T) + 0.1 * usual * common
    found = expected_similarity(csr_array(dense), csr_array(partner), np.array([1, 4]))
    np.testing.assert_allclose(found.toarray(), expected[[1, 4]])


def test_photos_whose_pairs_fail_ask_for_no_more() -> None:
    """Thirteen photos that all look alike; each was tried with the five before and after it."""
    count = EXPANSION.min_tried_pairs + 3
    alike = matrix(count, {(a, b): 0.5 for a in range(count) for b in range(a + 1, count)})
    pairs = np.array(
        [sorted((a, (a + gap) % count)) for a in range(count) for gap in range(1, EXPANSION.min_tried_pairs // 2 + 1)]
    )
    assert len(next_round_pairs(alike, NO_PAIRS_TRIED.with_round(pairs, np.zeros(len(pairs), bool)), MOST)) == 0
    more = next_round_pairs(alike, NO_PAIRS_TRIED.with_round(pairs, np.ones(len(pairs), bool)), MOST)
    assert len(as_set(more)) == count
    assert not as_set(more) & as_set(pairs)


def test_first_pairs_are_the_most_alike() -> None:
    alike = matrix(
        EXPANSION.first_round_partners + 2, {(0, b): 0.1 * b for b in range(1, EXPANSION.first_round_partners + 2)}
    )
    asked = first_round_pairs(alike[[0]])  # the first photo alone
    assert as_set(asked) == {(0, b) for b in range(2, EXPANSION.first_round_partners + 2)}
    assert as_set(first_round_pairs(alike)) == {
        (0, b) for b in range(1, EXPANSION.first_round_partners + 2)
    }  # 1 has no other
    assert len(first_round_pairs(matrix(1, {}))) == 0
    assert len(next_round_pairs(matrix(1, {}), NO_PAIRS_TRIED, MOST)) == 0
