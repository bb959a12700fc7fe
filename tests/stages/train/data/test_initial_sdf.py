"""What SfM and stereo say before training: the starting SDF, tiles to draw, views, lines of sight, extraction."""

import numpy as np
import pytest

from quoin.stages.train.data.initial_sdf import sdf_from_points, tile_weights, voxel_downsample
from quoin.stages.train.data.supervision import free_space_rays
from quoin.stages.train.sdf_bricks import sample_bricks


def ball_points(n=6000, radius=0.6, seed=0):
    normal = np.random.default_rng(seed).normal(size=(n, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return radius * normal, normal


def test_seed_is_a_signed_distance_near_the_points_and_positive_far_behind_them():
    points, normal = ball_points()
    spacing, low = 2 / 64, -np.ones(3)
    sdf = sdf_from_points(points, normal, low, spacing, (65, 65, 65))
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 65)] * 3, indexing="ij"), -1)
    true = np.linalg.norm(grid, axis=-1) - 0.6
    outside = (true > 0.05) & (true < 0.3)
    assert np.abs(sdf - true)[outside].max() < 0.05
    just_inside = (true < -0.3 * spacing) & (true > -1.2 * spacing)
    assert (sdf[just_inside] < 0).mean() > 0.95
    assert sdf[32, 32, 32] > 0  # nothing is known of the inside
    assert sdf_from_points(np.zeros((0, 3)), np.zeros((0, 3)), low, spacing, (5, 5, 5)).min() == 1.0


def test_thinning_keeps_one_point_per_cell():
    points = np.random.default_rng(0).random((5000, 3))
    keep = voxel_downsample(points, 0.1, 10_000, np.random.default_rng(1))
    assert len(np.unique(np.floor(points[keep] / 0.1), axis=0)) == len(keep)
    assert len(voxel_downsample(points, 0.1, 50, np.random.default_rng(1))) == 50


def test_tiles_with_points_of_the_block_weigh_most_and_those_in_front_nothing():
    xy = np.array([[8.0, 8.0], [150.0, 8.0]])
    (weights,) = tile_weights(np.array([[160, 160]]), [(xy, np.array([1, -1]))], 16, background=0.25)
    assert weights.shape == (10, 10)
    assert weights[0, 0] == 1.0
    assert weights[0, 9] == 0.0
    assert weights[9, 5] == 0.25


def test_lines_of_sight_are_cut_to_the_box():
    centers, points = np.array([[-3.0, 0, 0]]), np.array([[0.5, 0, 0], [5.0, 0, 0], [-2.0, 0, 0]])
    sights = free_space_rays(centers, points, np.zeros(3, int), np.arange(3), np.ones(3))
    assert sights["ray_near"] == pytest.approx([2.0, 2.0])  # the third ends before the box
    assert sights["ray_far"] == pytest.approx([3.5, 4.0])
    assert sights["ray_depth"] == pytest.approx([3.5, 8.0])


def test_bricks_of_a_ball_match_its_sdf_near_the_surface_and_skip_the_rest():
    center, radius, evaluated = np.array([40.0, 40.0, 40.0]), 25.0, []

    def sdf(index):
        evaluated.append(len(index))
        return np.linalg.norm(index - center, axis=1) - radius

    bricks = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    kept, values = sample_bricks(sdf, bricks, 32, clip=8.0)
    grid = np.stack(np.meshgrid(*[np.arange(33)] * 3, indexing="ij"), -1)
    covered = set(map(tuple, kept))
    for brick in bricks:
        true = np.linalg.norm(brick * 32 + grid - center, axis=-1) - radius
        assert (tuple(brick) in covered) == bool(true.min() <= 0 <= true.max())
    for brick, value in zip(kept, values, strict=True):
        true = np.linalg.norm(brick * 32 + grid - center, axis=-1) - radius
        near = np.abs(true) < 2.0
        assert np.abs(value.astype(float) - true)[near].max() < 0.01
        assert ((value > 0) == (true > 0))[np.abs(true) > 0.01].all()
    assert sum(evaluated) < 0.35 * len(bricks) * 33**3
