"""Cameras against their own formulas, the slab test and its twin in torch, and frusta against all points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quoin.fields import rays
from quoin.pipeline.geometry.cameras import (
    center_world,
    centers_world,
    frustum_query,
    intersect_ray_box,
    is_in_image,
    look_at,
    normalize,
    pixel_grid,
    project,
    rays_world,
    to_camera,
)

LOW, HIGH = np.array([-1.0, -2.0, -3.0]), np.array([1.0, 2.0, 3.0])


def test_normalize() -> None:
    vectors = np.array([[[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(normalize(vectors), [[[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]]])
    assert normalize(vectors.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(normalize(np.array([[0.5, 0.0]]), eps=2.0), [[0.25, 0.0]])


def test_a_ray_crosses_a_box_from_face_to_face() -> None:
    origins = np.array([[-5.0, 0, 0], [0, 0, 0], [0.5, 9, 0], [-5, 2.5, 0], [5, 0, 0]])
    directions = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0], [1, 0, 0], [1, 0, 0]])
    near, far = intersect_ray_box(origins, directions, LOW, HIGH)
    np.testing.assert_allclose(near[:3], [4, 0, 7])
    np.testing.assert_allclose(far[:3], [6, 3, 11])
    np.testing.assert_array_equal(far[3:], near[3:])  # beside the box, and behind the origin


def test_torch_twin_of_the_slab_test() -> None:
    rng = np.random.default_rng(0)
    origins, directions = rng.uniform(-4, 4, (5000, 3)), normalize(rng.normal(size=(5000, 3)))
    directions[:300, 0] = 0.0
    near, far = intersect_ray_box(origins, directions, LOW, HIGH)
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in (origins, directions, LOW, HIGH)]
    twin = rays.intersect_ray_box(*tensors)
    near_twin, far_twin, hit_twin = twin.near.numpy(), twin.far.numpy(), twin.hits.numpy()
    clear = np.abs(far - near - 1e-6) > 1e-4  # rays that graze an edge may fall to either side
    np.testing.assert_array_equal(hit_twin[clear], (far > near)[clear])
    hit = (far > near) & clear
    np.testing.assert_allclose(near_twin[hit], near[hit], atol=1e-4)
    np.testing.assert_allclose(far_twin[hit], far[hit], atol=1e-4)


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


K, SIZE = np.array([100.0, 90.0, 60.0, 40.0]), (120, 80)


@pytest.mark.parametrize("spread", [(100.0, 100.0, 0.0), (100.0, 80.0, 10.0), (5.0, 5.0, 5.0), (50.0, 0.0, 0.0)])
def test_every_point_in_the_picture_is_among_them(spread: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (20_000, 3)) * spread
    find = frustum_query(points)
    for _ in range(12):
        pose = look_at(rng.uniform(-40, 40, 3), rng.uniform(-20, 20, 3))
        xy, depth = project(pose, K, points)
        shown = np.flatnonzero((depth > 0) & np.all((xy >= 0) & (xy <= SIZE), axis=1))
        found = find(pose, K, SIZE)
        assert np.all(np.diff(found) > 0)
        assert np.isin(shown, found).all()


def test_what_is_far_aside_is_not_looked_at() -> None:
    """A drone over a field 50 times as wide as its picture is asked about a small part of it."""
    points = np.random.default_rng(0).uniform(-500, 500, (200_000, 3)) * [1, 1, 0]
    pose = look_at(np.array([0.0, 0, 20]), np.zeros(3))
    found = frustum_query(points)(pose, K, SIZE)
    xy, _ = project(pose, K, points)
    shown = np.all((xy >= 0) & (xy <= SIZE), axis=1).sum()
    assert shown <= len(found) < 0.02 * len(points)


def test_no_points_and_one_point() -> None:
    pose = look_at(np.array([0.0, 0, 5]), np.zeros(3))
    assert len(frustum_query(np.zeros((0, 3)))(pose, K, SIZE)) == 0
    assert frustum_query(np.zeros((1, 3)))(pose, K, SIZE).tolist() == [0]
    assert len(frustum_query(np.array([[0.0, 0, 9]]))(pose, K, SIZE)) == 0
