"""Bricks of fields of which only the sign tells: where the surface is, and that bricks agree."""

import numpy as np
import pytest

from quoin.pipeline.geometry.lattice import BrickBox
from quoin.stages.train.sdf_bricks import sample_level_set

LOW, SIZE = (-1, 0, 2), 16
CENTRE, RADIUS = np.array([8.0, 24.0, 56.0]), 15.0


def bumpy(index):
    """Distance to a ball with bumps, to first order, in voxels."""
    away = index - CENTRE
    bumps = 1.5 * np.sin(0.4 * index[..., 0]) * np.sin(0.35 * index[..., 1] + 1.0) * np.sin(0.3 * index[..., 2])
    return np.linalg.norm(away, axis=-1) - RADIUS + bumps


def logit(index):
    """Of the ball's occupancy, its sign turned: steeper here than there, and saturated off the surface."""
    return (np.tanh((0.6 + 0.4 * np.sin(0.1 * index[..., 0])) * bumpy(index)) * 17.0).astype(np.float32)


@pytest.fixture(scope="module")
def bricks():
    asked = []

    def value(index):
        asked.append(len(index))
        return logit(index)

    box = BrickBox(LOW, tuple(low + 3 for low in LOW))
    kept, values = sample_level_set(value, box, SIZE, 8.0)
    assert sum(asked) < 0.4 * (3 * SIZE + 1) ** 3
    return kept, values


def samples_of(brick):
    side = np.arange(SIZE + 1)
    return np.stack(np.meshgrid(*[side] * 3, indexing="ij"), axis=-1) + brick * SIZE


def test_bricks_hold_the_sign_and_near_the_surface_the_distance_in_voxels(bricks):
    kept, values = bricks
    assert values.dtype == np.float16 and np.abs(values).max() <= 8.0
    for brick, got in zip(kept, values, strict=True):
        truth = bumpy(samples_of(brick))
        assert np.array_equal(got > 0, truth > 0)
        off = np.abs(got - truth)[np.abs(truth) < 0.5]  # what is true to first order is off where the logit bends
        assert off.max() < 0.5 and np.median(off) < 0.1


def test_bricks_with_surface_are_kept_and_no_others(bricks):
    kept = {tuple(brick) for brick in bricks[0]}
    for brick in BrickBox(LOW, tuple(low + 3 for low in LOW)).bricks():
        truth = bumpy(samples_of(brick))
        assert (tuple(brick) in kept) == bool(truth.min() <= 0 <= truth.max())


def test_neighbours_agree_on_the_samples_they_share(bricks):
    values = {tuple(brick): samples for brick, samples in zip(*bricks, strict=True)}
    n_pairs = 0
    for (x, y, z), samples in values.items():
        ahead = values.get((x + 1, y, z))
        if ahead is not None:
            assert np.array_equal(samples[-1], ahead[0])
            n_pairs += 1
    assert n_pairs > 4


def test_a_field_without_surface_leaves_no_brick():
    kept, values = sample_level_set(
        lambda index: np.full(len(index), 3.0, np.float32), BrickBox((0, 0, 0), (1, 2, 1)), 8, 8.0
    )
    assert kept.shape == (0, 3) and values.shape == (0, 9, 9, 9)
