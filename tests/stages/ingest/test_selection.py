"""Photos wider than the others; camera groups: equal kind, focal lengths within 1 %."""

from __future__ import annotations

from math import isnan, nan

from hypothesis import given
from hypothesis import strategies as st

from quoin.stages.ingest.exif import Exif
from quoin.stages.ingest.selection import camera_groups, exposure_offsets_ev, find_too_wide


def test_groups_by_kind_and_focal_length():
    kinds = ["a", "a", "a", "b", "a", "a", "a"]
    focals = [1000.0, 1005.0, 1020.0, 1000.0, nan, nan, 999.0]
    assert camera_groups(kinds, focals) == [0, 0, 1, 2, 3, 3, 0]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.one_of(st.just(nan), st.floats(100, 130))), max_size=30))
def test_a_group_is_one_kind_within_one_per_cent(photos):
    groups = camera_groups([kind for kind, _ in photos], [focal for _, focal in photos])
    for group in set(groups):
        members = [photo for photo, g in zip(photos, groups, strict=True) if g == group]
        focals = [focal for _, focal in members]
        assert len({kind for kind, _ in members}) == 1
        assert len({isnan(focal) for focal in focals}) == 1
        assert isnan(focals[0]) or max(focals) <= min(focals) * 1.01
    assert list(dict.fromkeys(groups)) == list(range(len(set(groups))))


def test_wide_photos_unless_most_are():
    normal, wide, high = (400, 300), (900, 300), (300, 900)
    assert find_too_wide([normal, wide, high, normal, normal], 2.5) == [False, True, True, False, False]
    assert find_too_wide([normal, wide, wide, wide], 2.5) == [False] * 4  # a camera such as those on cars
    assert find_too_wide([normal, (750, 300)], 2.5) == [False, False]
    assert find_too_wide([], 2.5) == []


# -- exposure brackets -------------------------------------------------------------------------------------------------


def test_brackets_are_told_by_the_bias_that_the_camera_noted():
    exifs = [Exif(exposure_bias_ev=ev, exposure_ev=-6.0 - 3.0 * i) for i, ev in enumerate((0.0, -2.0, 2.0))]
    assert exposure_offsets_ev(exifs) == [0.0, -2.0, 2.0]


@given(st.permutations([-2.0, 0.0, 2.0]), st.sampled_from([nan, 0.0, -0.7]), st.integers(2, 5))
def test_brackets_by_hand_are_told_by_the_exposure_of_the_photos_around(order, bias, n_places):
    exifs = [Exif(exposure_bias_ev=bias, exposure_ev=ev - 7.0) for _ in range(n_places) for ev in order]
    assert exposure_offsets_ev(exifs) == order * n_places


def test_photos_without_exif_are_exposed_as_metered():
    assert exposure_offsets_ev([Exif(), Exif(exposure_ev=-3.0), Exif()]) == [0.0, 0.0, 0.0]
    assert exposure_offsets_ev([]) == []
