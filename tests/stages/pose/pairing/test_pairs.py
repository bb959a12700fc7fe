"""Pairs of which something is known before anything is compared."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.pairing.pairs import (
    clip_pairs,
    exhaustive_pairs,
    nearest_pairs,
    quadratic_overlap_pairs,
    sequential_pairs,
    unique_pairs,
    window_pairs,
)
from quoin.stages.pose.sfm import initial_cameras


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
