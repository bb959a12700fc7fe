"""Of every stretch of motion one sharp frame; of standing still one; of blur none; never more than asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.stages.ingest.keyframes import (
    MIN_KEYFRAME_STEP,
    FrameSamples,
    choose_keyframes,
    fit_keyframe_step,
    split_by_motion,
)

RATE = 15.0


def moving(shifts, sharp=0.3) -> FrameSamples:
    """A clip whose frames move sideways by ``shifts`` (of the long edge), each since the one before."""
    n = len(shifts)
    motion = np.zeros((n, 3, 2))
    motion[:, :, 0] = np.array(shifts)[:, None]
    return FrameSamples(np.arange(n), np.arange(n) / RATE, motion, np.broadcast_to(sharp, n).astype(float))


def places(seen: FrameSamples, step: float) -> np.ndarray:
    return np.cumsum(seen.motion[:, 0, 0])[[part.best for part in split_by_motion(seen, step)]]


def test_frames_are_taken_a_step_apart():
    gaps = np.diff(places(moving(np.full(300, 0.0101)), MIN_KEYFRAME_STEP))
    assert len(gaps) == 59
    np.testing.assert_allclose(gaps, MIN_KEYFRAME_STEP, atol=0.011)


def test_the_sharpest_of_a_stretch_is_taken():
    rng = np.random.default_rng(1)
    seen = moving(np.full(300, 0.01), rng.uniform(0.1, 0.4, 300))
    for part in split_by_motion(seen, MIN_KEYFRAME_STEP):
        assert seen.sharpness[part.best] >= 0.9 * seen.sharpness[part.begin : part.end].max()


def test_trembling_and_standing_still_give_one_frame():
    rng = np.random.default_rng(0)
    place = rng.uniform(-0.02, 0.02, 900)
    seen = moving(np.diff(place, prepend=0.0))
    found = choose_keyframes(seen, MIN_KEYFRAME_STEP, 0.35)
    assert len(found.selected) == 1
    assert found.still_s == [(0.0, 899 / RATE)]


def test_a_pause_is_told_and_gives_no_more_than_a_frame():
    walk = np.full(120, 0.01)
    whole = choose_keyframes(moving(np.concatenate([walk, walk])), MIN_KEYFRAME_STEP, 0.35)
    paused = choose_keyframes(moving(np.concatenate([walk, np.zeros(150), walk])), MIN_KEYFRAME_STEP, 0.35)
    assert abs(len(paused.selected) - len(whole.selected)) <= 1
    ((begin, end),) = paused.still_s
    assert begin <= 120 / RATE <= 269 / RATE <= end
    assert not whole.still_s


def test_a_blurred_stretch_gives_none_and_says_when():
    sharp = np.full(300, 0.3)
    sharp[100:160] = 0.02
    found = choose_keyframes(moving(np.full(300, 0.01), sharp), MIN_KEYFRAME_STEP, 0.35)
    assert found.selected
    assert not [i for i in found.selected if 100 <= i < 160]
    ((begin, end),) = found.blurred_s
    assert begin == pytest.approx(100 / RATE, abs=0.5)
    assert end == pytest.approx(160 / RATE, abs=0.5)
    assert len(choose_keyframes(moving(np.full(300, 0.01), sharp), MIN_KEYFRAME_STEP, 0.0).selected) > len(
        found.selected
    )


def test_a_clip_that_is_soft_all_over_is_used_and_one_that_is_blurred_all_over_is_not():
    assert choose_keyframes(moving(np.full(60, 0.01), 0.06), MIN_KEYFRAME_STEP, 0.35).selected
    nothing = choose_keyframes(moving(np.full(60, 0.01), 0.01), MIN_KEYFRAME_STEP, 0.35)
    assert nothing.selected == []
    assert nothing.blurred_s == [(0.0, 59 / RATE)]


def test_a_cut_begins_a_new_stretch():
    seen = moving(np.zeros(60))
    seen.motion[30] = np.nan
    assert [(part.begin, part.end) for part in split_by_motion(seen, MIN_KEYFRAME_STEP)] == [(0, 30), (30, 60)]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 60), st.lists(st.floats(-0.2, 0.2) | st.just(np.nan), min_size=1, max_size=80))
def test_no_more_than_asked_for_and_every_frame_in_one_stretch(most, shifts):
    seen = moving(np.array(shifts))
    step = fit_keyframe_step([seen, seen], most)
    cut = split_by_motion(seen, step)
    assert 2 * len(cut) <= max(most, 2)
    assert [part.begin for part in cut] == [0, *(part.end for part in cut[:-1])]
    assert cut[-1].end == len(shifts)
    assert all(part.begin <= part.best < part.end for part in cut)


def test_a_cap_widens_the_steps_evenly():
    long, short = moving(np.full(600, 0.0101)), moving(np.full(150, 0.0101))
    step = fit_keyframe_step([long, short], 60)
    assert step > MIN_KEYFRAME_STEP
    assert 54 <= sum(len(split_by_motion(seen, step)) for seen in (long, short)) <= 60
    np.testing.assert_allclose(np.diff(places(long, step)), step, atol=0.02)
    assert fit_keyframe_step([short], 60) == MIN_KEYFRAME_STEP
