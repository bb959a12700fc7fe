"""What lies around a plane tells whether it is a surface or chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from quoin.stages.priors.stereo.consistency import CONSISTENCY_PARAMS, MIN_SEGMENT_PX, local_support, speckles
from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses

SHAPE = 40, 50


def slanted(share_per_pixel: float = 0.002) -> PlaneHypotheses:
    """One plane, whose inverse depth grows to the right and downwards."""
    y, x = torch.meshgrid(torch.arange(SHAPE[0]) - 20.0, torch.arange(SHAPE[1]) - 25.0, indexing="ij")
    slope = torch.full(SHAPE, 0.2 * share_per_pixel)
    return PlaneHypotheses(0.2 + slope * (x + y), slope, slope)


def of(value: int) -> torch.Tensor:
    return torch.full(SHAPE, value, dtype=torch.int32)


def inner(field: torch.Tensor) -> torch.Tensor:
    return field[8:-8, 8:-8]


def test_a_plane_that_is_confirmed_all_over_has_all_support_however_slanted():
    found = inner(local_support(slanted(), of(2), of(0)))
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_a_pixel_has_the_witnesses_of_its_surface_and_not_of_another():
    planes, count = slanted(), of(1)
    planes.w[20, 25] *= 1.2
    found = local_support(planes, count, of(0))
    assert found[20, 25] == 0  # chance, with a witness of its own
    assert float(found[21, 26]) == pytest.approx(2 * 35 / 36)  # which its neighbours hardly miss
    count[18:23, 23:28] = 0
    assert local_support(slanted(), count, of(0))[20, 25] > 1.5  # confirmed around: it goes on


def test_chance_has_little_support():
    generator = torch.Generator().manual_seed(0)
    w = 0.1 + 0.2 * torch.rand(SHAPE, generator=generator)
    flat = torch.zeros(SHAPE)
    assert float(local_support(PlaneHypotheses(w, flat, flat), of(1), of(0)).max()) < 0.5
    assert not local_support(PlaneHypotheses(flat, flat, flat), of(3), of(0)).any()


@settings(max_examples=20)
@given(st.integers(0, 10), st.integers(0, 10))
def test_more_witnesses_than_enough_say_no_more_and_who_sees_through_says_less(count, through):
    found = inner(local_support(slanted(), of(count), of(through)))
    torch.testing.assert_close(
        found, torch.full_like(found, min(count, CONSISTENCY_PARAMS.max_supporting_views) + 1 - 0.1 * through)
    )


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
