"""Pinhole cameras: what is projected lies on its own ray, and pixel centres are at one half."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.geometry.cameras import (
    center_world,
    centers_world,
    is_in_image,
    look_at,
    pixel_grid,
    project,
    rays_world,
    to_camera,
)

INTRINSICS = np.array([500.0, 480.0, 321.5, 238.0])


def test_a_camera_at_the_origin_by_hand():
    cam_from_world = np.eye(3, 4)
    pixels, depth = project(cam_from_world, INTRINSICS, np.array([[0.0, 0.0, 2.0], [1.0, -1.0, 2.0]]))
    np.testing.assert_allclose(pixels, [[321.5, 238.0], [571.5, -2.0]])
    np.testing.assert_allclose(depth, [2.0, 2.0])


@given(st.integers(0, 2**31))
def test_a_projected_point_lies_on_the_ray_of_its_pixel(seed: int):
    rng = np.random.default_rng(seed)
    center = rng.uniform(-5, 5, 3) + np.array([0, 0, 20])
    cam_from_world = look_at(center, rng.uniform(-1, 1, 3))
    points = rng.uniform(-4, 4, (20, 3))
    pixels, depth = project(cam_from_world, INTRINSICS, points)
    assert (depth > 0).all()
    origin, directions = rays_world(cam_from_world, INTRINSICS, pixels)
    np.testing.assert_allclose(origin, center, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    along = np.linalg.norm(points - center, axis=1)
    np.testing.assert_allclose(origin + directions * along[:, None], points, atol=1e-9)


def test_a_point_behind_the_camera_has_no_positive_depth():
    _, depth = project(np.eye(3, 4), INTRINSICS, np.array([[0.0, 0.0, -1.0], [0.3, 0.2, 0.0]]))
    assert (depth <= 0).all()


def test_pixel_grid_gives_centres_row_by_row():
    np.testing.assert_allclose(
        pixel_grid(3, 2), [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
    )
    np.testing.assert_allclose(pixel_grid(4, 4, step=2), [[1.5, 1.5], [3.5, 1.5], [1.5, 3.5], [3.5, 3.5]])


@pytest.mark.parametrize("center", [(3.0, 4.0, 5.0), (0.0, 0.0, 7.0), (0.0, 0.0, -7.0), (2.0, 0.0, 0.0)])
def test_look_at_puts_the_target_in_the_middle_and_up_upwards(center):
    cam_from_world = look_at(np.array(center), np.zeros(3))
    rotation = cam_from_world[:, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(centers_world(cam_from_world[None])[0], center, atol=1e-12)
    pixel, depth = project(cam_from_world, INTRINSICS, np.zeros((1, 3)))
    np.testing.assert_allclose(pixel[0], INTRINSICS[2:], atol=1e-9)
    assert depth[0] == pytest.approx(np.linalg.norm(center))
    if center[0] or center[1]:
        above = to_camera(cam_from_world, np.array([[0.0, 0.0, 0.1]]))
        assert above[0, 1] < 0, "y points down in the camera"


def test_points_in_front_of_the_camera_and_inside_its_image() -> None:
    pixels = np.array([[0.0, 0.0], [639.9, 479.9], [640.0, 10.0], [-0.1, 5.0], [320.0, 240.0]])
    depth = np.array([1.0, 1.0, 1.0, 1.0, -1.0])
    assert is_in_image(pixels, depth, (640, 480)).tolist() == [True, True, False, False, False]


def test_center_of_one_camera_is_that_of_many() -> None:
    poses = np.stack([look_at(np.array([1.0, i, 2.0]), np.zeros(3)) for i in range(3)])
    np.testing.assert_allclose(centers_world(poses), [[1, 0, 2], [1, 1, 2], [1, 2, 2]], atol=1e-12)
    np.testing.assert_allclose([center_world(pose) for pose in poses], centers_world(poses), atol=1e-15)
