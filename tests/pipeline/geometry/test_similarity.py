"""Similarities invert and move cameras so that what a photo shows does not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world, project
from quoin.pipeline.geometry.similarity import (
    Similarity,
    fit_similarity,
    fit_similarity_robust,
    inlier_limit,
    robust_sigma,
)

numbers = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 6))


@st.composite
def similarities(draw: st.DrawFn) -> Similarity:
    turn = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    assume(np.linalg.norm(turn) > 0.1)
    move = np.array([draw(numbers) for _ in range(3)])
    return Similarity(draw(st.floats(0.01, 100)), Rotation.from_quat(turn).as_matrix(), move, "drawn")


def clouds(seed: int, n: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3))


seeds = st.integers(0, 2**31)


@given(similarities(), seeds)
def test_inverse_leads_back(there: Similarity, seed: int):
    x = clouds(seed)
    tolerance = 1e-11 * (1.0 + np.abs(there.translation).max() / there.scale)
    np.testing.assert_allclose(there.inverse().apply(there.apply(x)), x, atol=max(tolerance, 1e-10))


@given(similarities(), seeds)
def test_a_moved_camera_sees_the_moved_points_on_the_same_pixels(target_from_source: Similarity, seed: int):
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed % 2**31).as_matrix()
    cam_from_source = np.concatenate([rotation, rng.normal(size=(3, 1))], axis=1)
    # points in front of the camera, taken back to the source frame
    in_camera = rng.uniform([-1, -1, 1], [1, 1, 5], (10, 3))
    points = (in_camera - cam_from_source[:, 3]) @ cam_from_source[:, :3]
    intrinsics = np.array([500.0, 510.0, 320.0, 240.0])
    cam_from_target = target_from_source.apply_to_poses(cam_from_source[None])[0]
    pixels, depth = project(cam_from_source, intrinsics, points)
    moved_pixels, moved_depth = project(cam_from_target, intrinsics, target_from_source.apply(points))
    scale = 1.0 + np.abs(target_from_source.translation).max() / target_from_source.scale
    np.testing.assert_allclose(moved_pixels, pixels, atol=1e-9 * scale * 500)
    np.testing.assert_allclose(moved_depth, target_from_source.scale * depth, rtol=1e-9 * scale)
    np.testing.assert_allclose(
        centers_world(cam_from_target[None]),
        target_from_source.apply(centers_world(cam_from_source[None])),
        atol=1e-9 * scale * max(1.0, target_from_source.scale),
    )


def test_json_keeps_every_bit():
    there = Similarity(
        1 / 3, Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix(), np.array([1e6 / 3, 0, -1]), "why"
    )
    back = Similarity.from_json(there.to_json())
    np.testing.assert_array_equal(back.matrix(), there.matrix())
    assert back.provenance == "why"


# -- fits ------------------------------------------------------------------------------------------------------------


def agree(a: Similarity, b: Similarity, tolerance: float = 1e-8) -> None:
    scale = max(1.0, np.abs(b.matrix()).max())
    np.testing.assert_allclose(a.matrix() / scale, b.matrix() / scale, atol=tolerance)


@given(similarities(), seeds)
def test_exact_points_give_the_exact_similarity(truth: Similarity, seed: int):
    x = clouds(seed)
    agree(fit_similarity(x, truth.apply(x)), truth)


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_points_in_a_plane_do_not_mirror(flat: int):
    x = clouds(flat, 12)
    x[:, flat] = 0.0
    truth = Similarity(2.0, Rotation.from_euler("xyz", [1.0, 2.0, 3.0]).as_matrix(), np.array([1.0, 2.0, 3.0]))
    fitted = fit_similarity(x, truth.apply(x))
    agree(fitted, truth)
    assert np.linalg.det(fitted.rotation) == pytest.approx(1.0)


def test_mirrored_points_get_a_rotation_nonetheless():
    x = clouds(5)
    assert np.linalg.det(fit_similarity(x, x * [1, 1, -1]).rotation) == pytest.approx(1.0)


def test_without_scale_the_scale_is_one():
    x = clouds(6)
    assert fit_similarity(x, 3.0 * x, with_scale=False).scale == 1.0


def test_two_points_are_refused():
    with pytest.raises(QuoinError, match="3 matched points"):
        fit_similarity(clouds(0, 2), clouds(1, 2))


@pytest.mark.parametrize("wild", [1, 3, 8])
def test_wild_points_do_not_move_the_robust_fit(wild: int):
    """pycolmap was seen to leave a camera 37,000 units away in a scene of 7."""
    rng = np.random.default_rng(wild)
    x = rng.normal(size=(20, 3))
    truth = Similarity(0.5, Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix(), np.array([10.0, -4.0, 0.0]))
    y = truth.apply(x) + rng.normal(scale=1e-3, size=x.shape)
    y[:wild] += rng.normal(size=(wild, 3)) * 37_000
    fitted, inliers = fit_similarity_robust(x, y)
    agree(fitted, truth, 1e-3)
    assert not inliers[:wild].any()
    assert inliers[wild:].mean() > 0.8
    plain = fit_similarity(x, y)
    assert np.abs(plain.translation - truth.translation).max() > 100, "the case is hard enough to tell the two apart"


def test_the_robust_fit_repeats_itself():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    one, two = (fit_similarity_robust(x, y, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one[0].matrix(), two[0].matrix())
    np.testing.assert_array_equal(one[1], two[1])


def test_cameras_on_a_line_still_give_an_answer():
    x = np.outer(np.arange(6.0), [1.0, 2.0, 3.0])
    fitted, inliers = fit_similarity_robust(x, 2.0 * x + 1.0)
    np.testing.assert_allclose(fitted.apply(x), 2.0 * x + 1.0, atol=1e-9)
    assert inliers.all()


def test_robust_sigma_of_normal_values() -> None:
    values = np.random.default_rng(0).normal(0, 2.0, 100_000)
    values[::20] = 1e6
    assert robust_sigma(values) == pytest.approx(2.0, rel=0.08)
    assert robust_sigma(np.array([-1.0, 1.0, 1.0])) == pytest.approx(1.4826)


def test_inlier_limit() -> None:
    assert inlier_limit(np.array([1.0, 2.0, 300.0])) == pytest.approx(3 * 1.4826 * 2)
    assert inlier_limit(np.zeros(4)) == 1e-9
