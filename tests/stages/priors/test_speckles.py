"""What stands alone goes, what hangs together stays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from stages.priors.speckles import speckles


def test_lone_depths_are_speckles_and_a_surface_is_none():
    depth = np.zeros((40, 40), np.float32)
    depth[20:, :] = np.linspace(3, 9, 20)[::-1, None]  # ground that runs away from the camera
    depth[2:4, 2:5] = 5.0
    depth[8, 30] = 7.0
    found = speckles(depth, 10, max_step=0.1)
    assert found.sum() == 7
    assert not found[20:].any()


def test_a_speckle_before_a_surface_is_not_part_of_it():
    depth = np.full((30, 30), 10.0, np.float32)
    depth[10:12, 10:12] = 6.0
    assert np.array_equal(speckles(depth, 5), depth == 6.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_on_one_depth_it_is_the_size_of_components(seed, least):
    known = np.random.default_rng(seed).random((15, 20)) < 0.4
    labels, _ = label(known, structure=np.ones((3, 3)))
    small = known & (np.bincount(labels.ravel())[labels] < least)
    assert np.array_equal(speckles(np.where(known, 2.0, 0.0), least), small)
