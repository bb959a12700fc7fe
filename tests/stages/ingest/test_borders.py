"""Frames are found to the pixel; skies, walls and nights are no frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.stages.ingest.borders import NO_BORDER, find_borders
from tests.stages.ingest.scenes import as_rgb, saved, texture

PHOTO = as_rgb(texture(1, 240, 320))
MARGIN = 2


def framed(left: int, top: int, right: int, bottom: int, colour: int = 255) -> np.ndarray:
    return np.pad(PHOTO, ((top, bottom), (left, right), (0, 0)), constant_values=colour)


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.integers(3, 40)] * 4), st.sampled_from([0, 255]))
def test_a_frame_is_found_to_the_pixel(sides, colour):
    assert find_borders(framed(*sides, colour)) == tuple(side + MARGIN for side in sides)


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.integers(12, 40)] * 4), st.sampled_from([0, 255]))
def test_a_frame_is_found_after_jpeg(sides, colour):
    found = find_borders(saved(framed(*sides, colour), 80))
    assert all(side <= cut <= side + 2 * MARGIN for cut, side in zip(found, sides, strict=True))


@pytest.mark.parametrize("sides", [(0, 60, 0, 60), (120, 0, 120, 0), (8, 0, 0, 0), (0, 0, 0, 20)])
def test_letterboxes_and_single_bars(sides):
    found = find_borders(framed(*sides, 0))
    assert found == tuple(side + MARGIN if side else 0 for side in sides)


def test_a_photo_without_a_frame():
    assert find_borders(PHOTO) == NO_BORDER
    assert find_borders(np.full((100, 120, 3), 7, np.uint8)) == NO_BORDER
    assert find_borders(np.zeros((1, 1, 3), np.uint8)) == NO_BORDER


def test_skies_and_nights_end_in_no_straight_line():
    for level in (0, 255):
        sky = PHOTO.copy()
        hills = 30 + 12 * np.sin(np.arange(320) / 40.0)
        sky[np.arange(240)[:, None] < hills] = level
        assert find_borders(sky) == NO_BORDER


def test_a_wall_that_darkens_slowly_is_no_bar():
    wall = PHOTO.copy()
    fade = np.clip((np.arange(240) - 20.0) / 40.0, 0.0, 1.0)[:, None, None]
    assert find_borders((250 * (1 - fade) + wall * fade).astype(np.uint8)) == NO_BORDER


def test_a_white_sky_above_a_level_sea_is_too_high_for_a_single_bar():
    photo = PHOTO.copy()
    photo[:80] = 255
    assert find_borders(photo) == NO_BORDER


def test_bars_of_two_colours_are_no_letterbox():
    photo = framed(0, 60, 0, 0, 0)
    photo = np.pad(photo, ((0, 60), (0, 0), (0, 0)), constant_values=255)
    assert find_borders(photo) == NO_BORDER
