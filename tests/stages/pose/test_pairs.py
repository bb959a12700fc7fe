"""Pairs of which something is known before anything is compared."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.pose.overlap import in_turn
from stages.pose.pairs import consecutive, exhaustive, nearest, unique_pairs


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


def test_photos_follow_each_other_by_name_and_by_time_within_an_hour() -> None:
    times = ["2020-05-01T12:00:00", "", "2020-05-01T12:59:00.25", "2020-05-01T12:10:00", "2020-05-01T14:30:00"]
    by_name = {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert {tuple(pair) for pair in in_turn([{"taken_at": time} for time in times]).tolist()} == by_name | {(0, 3)}
