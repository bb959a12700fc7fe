"""Where the camera goes."""

import numpy as np
import pytest

from quoin.pipeline.geometry.cameras import centers_world, look_at, project
from quoin.tools.render.camera_path import focus_point, interpolated_path, orbit_path, pose_distances, tour_order
from tests.fixtures.synthetic import ring_of_cameras

REGION = np.array([[-2.0, -2, -1], [2, 2, 3]])


def is_rotation(poses):
    turned = poses[:, :, :3] @ poses[:, :, :3].transpose(0, 2, 1)
    np.testing.assert_allclose(turned, np.broadcast_to(np.eye(3), turned.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(poses[:, :, :3]), 1.0)


def test_an_orbit_goes_round_at_the_photos_distance_and_looks_where_they_look():
    target = (0.3, -0.2, 0.5)
    poses = orbit_path(ring_of_cameras(12, 5.0, 1.5, target), REGION, 48)
    is_rotation(poses)
    centres = centers_world(poses)
    np.testing.assert_allclose(np.linalg.norm(centres[:, :2] - target[:2], axis=1), 5.0, rtol=0.02)
    np.testing.assert_allclose(centres[:, 2], 2.0, atol=0.05)
    steps = np.linalg.norm(np.diff(centres, axis=0, append=centres[:1]), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6, err_msg="it closes, at an even pace")
    for pose in poses[::7]:
        pixel, depth = project(pose, np.array([100.0, 100, 50, 50]), np.array([target]))
        assert depth[0] > 0
        np.testing.assert_allclose(pixel[0], 50, atol=2.0)


def test_an_orbit_does_not_go_where_nobody_looked_from():
    half = ring_of_cameras(24, 4.0)[:12]
    centres = centers_world(orbit_path(half, REGION, 100))
    true = centers_world(half)
    azimuth = np.arctan2(centres[:, 1], centres[:, 0])
    assert azimuth.min() > -0.05
    assert azimuth.max() < np.arctan2(true[-1, 1], true[-1, 0]) + 0.05
    np.testing.assert_allclose(centres[1], centres[-1], atol=1e-9, err_msg="there and back")


def test_the_focus_is_where_the_axes_meet():
    poses = ring_of_cameras(5, 3.0, 1.0, (1.0, 2.0, 0.5))
    np.testing.assert_allclose(focus_point(centers_world(poses), poses[:, 2, :3]), [1.0, 2.0, 0.5], atol=0.01)


def test_a_way_past_photos_begins_and_ends_at_photos_and_takes_small_steps():
    rng = np.random.default_rng(0)
    line = np.stack([look_at(np.array([x, 0.1 * np.sin(x), 1.0]), np.array([x, 5.0, 0.5])) for x in range(10)])
    shuffled = line[rng.permutation(10)]
    poses = interpolated_path(shuffled, 61)
    is_rotation(poses)
    x = centers_world(poses)[:, 0]
    assert {round(float(x[0]), 6), round(float(x[-1]), 6)} == {0.0, 9.0}
    assert (np.diff(x) > 0).all() or (np.diff(x) < 0).all(), "photos in a row are passed in a row"
    assert np.abs(np.diff(x)).max() < 0.4


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_photos_make_a_way_too(n):
    poses = interpolated_path(ring_of_cameras(8, 3.0)[:n], 5)
    assert poses.shape == (5, 3, 4)
    is_rotation(poses)


def test_two_photos_from_one_place_are_one_stop():
    ring = ring_of_cameras(6, 3.0)
    poses = interpolated_path(np.concatenate([ring, ring[2:3]]), 20)
    assert np.isfinite(poses).all()


def test_the_order_of_a_ring_is_the_ring():
    ring = ring_of_cameras(20, 3.0)
    mixed = np.random.default_rng(3).permutation(20)
    way = mixed[tour_order(pose_distances(ring[mixed]))]
    assert sorted(way.tolist()) == list(range(20))
    assert set(np.abs(np.diff(way)).tolist()) <= {1, 19}
