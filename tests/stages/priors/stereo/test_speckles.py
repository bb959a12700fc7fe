"""What stands alone goes, what hangs together stays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from quoin.stages.priors.stereo.speckles import MIN_SEGMENT_PX, speckles


def test_lone_depths_are_speckles_and_a_surface_is_none():
    depth = np.zeros((60, 60), np.float32)
    depth[30:, :] = np.linspace(3, 9, 30)[::-1, None] ** 0.5  # ground that runs away from the camera
    depth[2:4, 2:5] = 5.0
    depth[8, 30] = 7.0
    found = speckles(depth)
    assert found.sum() == 7
    assert not found[30:].any()


def test_a_speckle_before_a_surface_is_not_part_of_it():
    depth = np.full((30, 30), 10.0, np.float32)
    depth[10:12, 10:12] = 6.0
    assert np.array_equal(speckles(depth), depth == 6.0)


@given(st.integers(0, 2**32 - 1))
def test_on_one_depth_it_is_the_size_of_components(seed):
    known = np.random.default_rng(seed).random((30, 40)) < 0.3
    labels, _ = label(known, structure=np.ones((3, 3)))
    small = known & (np.bincount(labels.ravel())[labels] < MIN_SEGMENT_PX)
    found = speckles(np.where(known, 2.0, 0.0))
    assert np.array_equal(found, small)
