"""Planes of a scene from points that face a few directions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from quoin.pipeline.geometry.planes import bounding_planes, detect_planes

AXES = np.concatenate([np.eye(3), -np.eye(3)])
HALF = np.array([2.0, 1.5, 1.2])


def room(n_per_wall=2000, noise_m=0.004, seed=0):
    """Points on the inner sides of a box about the origin, and the normals that face inwards."""
    rng = np.random.default_rng(seed)
    points, normals = [], []
    for axis in range(3):
        for sign in (-1, 1):
            on = rng.uniform(-HALF, HALF, (n_per_wall, 3))
            on[:, axis] = sign * HALF[axis]
            points.append(on + rng.normal(0, noise_m, on.shape))
            normals.append(np.tile(-sign * np.eye(3)[axis], (n_per_wall, 1)))
    return np.concatenate(points), np.concatenate(normals)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_turned_room_has_its_six_planes_each_seen_from_within(seed):
    turn = Rotation.random(random_state=seed).as_matrix()
    points, normals = room(seed=seed)
    found = detect_planes(AXES @ turn.T, points @ turn.T, normals @ turn.T, np.ones(len(points)), 0.02, 500.0)
    assert len(found.offset) == 6
    for normal, offset in zip(found.normal, found.offset, strict=True):
        axis = np.abs(normal @ turn).argmax()
        assert offset == pytest.approx(-HALF[axis], abs=1e-3)  # n points inwards: the origin is on its side


def test_points_that_face_another_way_and_small_heaps_make_no_plane():
    points, normals = room()
    with_clutter = np.concatenate([points, np.random.default_rng(1).uniform(-1, 1, (3000, 3))])
    facing = np.concatenate([normals, np.tile([0.0, 0.0, 1.0], (3000, 1))])
    found = detect_planes(AXES, with_clutter, facing, np.ones(len(facing)), 0.02, 500.0)
    assert len(found.offset) == 6  # clutter: about 30 points in each slice of 2 cm
    none = detect_planes(
        AXES, points, np.roll(normals, 1, axis=1) * 0 + np.sqrt(1 / 3), np.ones(len(points)), 0.02, 1.0
    )
    assert len(none.offset) == 0


def test_a_double_wall_is_two_planes_and_a_rough_one_is_one():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(1.0, 0.004, 2000), rng.normal(1.1, 0.004, 1000), rng.normal(2.0, 0.01, 3000)])
    points = np.column_stack([x, rng.uniform(0, 2, (len(x), 2))])
    normals = np.tile([1.0, 0.0, 0.0], (len(x), 1))
    found = detect_planes(np.eye(3)[:1], points, normals, np.ones(len(x)), 0.02, 300.0)
    assert sorted(found.offset) == pytest.approx([1.0, 1.1, 2.0], abs=2e-3)


def test_the_scene_ends_at_its_outer_walls_and_not_at_a_table():
    points, normals = room()
    rng = np.random.default_rng(1)
    table = np.column_stack([rng.uniform(-1, 1, (1500, 2)), np.full(1500, -0.4)])
    wrong = rng.uniform(-1.5 * HALF, 1.5 * HALF, (300, 3))  # some of them outside
    points = np.concatenate([points, table, wrong])
    normals = np.concatenate([normals, np.tile([0.0, 0.0, 1.0], (1500, 1)), np.tile([0.6, 0.8, 0.0], (300, 1))])
    found = detect_planes(AXES, points, normals, np.ones(len(points)), 0.02, 500.0)
    assert len(found.offset) == 7
    ends = bounding_planes(found, points, 0.02)
    assert sorted(ends.offset.round(2).tolist()) == sorted((-HALF).tolist() * 2)
