"""Pinhole cameras: what is projected lies on its own ray, and pixel centres are at one half."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.geometry.cameras import centers_world, look_at, pixel_grid, project, rays_world, to_camera

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
