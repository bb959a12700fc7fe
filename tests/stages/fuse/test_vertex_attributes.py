"""Colors and confidence: best samples kept, a passer-by outvoted; confidence follows the error of a depth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.stages.fuse.vertex_attributes import (
    HALF_CONFIDENCE_SINE,
    ColorSamples,
    ViewDirections,
    color_agreement_weight,
    depth_votes,
    directions_to,
    fill_missing_colors,
    vertex_colors,
    vertex_confidence,
)
from quoin.stages.fuse.visibility import VisibleVertices


def filled(rgb: np.ndarray, photo: np.ndarray, weight: np.ndarray) -> ColorSamples:
    return ColorSamples(rgb.astype(np.uint8), photo.astype(np.int32), weight.astype(np.float32))


def test_only_the_strongest_samples_stay() -> None:
    samples = ColorSamples.empty(2, 3)
    for photo, weight in enumerate([0.3, 0.9, 0.1, 0.5, 0.7]):
        samples.add(photo, np.array([1]), np.full((1, 3), photo * 10, np.uint8), np.array([weight], np.float32))
    assert sorted(samples.photo[1].tolist()) == [1, 3, 4]
    assert sorted(samples.rgb[1, :, 0].tolist()) == [10, 30, 40]
    assert (samples.weight[0] == 0).all()


def test_a_passer_by_is_outvoted_and_exposure_divided_out() -> None:
    photo = np.tile(np.arange(5), (3, 1))
    gains = np.array([[1.0] * 3, [1.25] * 3, [0.8] * 3, [1.0] * 3, [1.0] * 3])
    rgb = np.broadcast_to(np.array([100, 120, 80])[None, None] * gains[None], (3, 5, 3)).copy()
    rgb[0, 3] = [250, 10, 10]
    weight = np.ones((3, 5))
    weight[0, 3] = 1.8
    weight[1, 1:] = 0
    weight[2] = 0
    colors, apart = vertex_colors(filled(rgb, photo, weight), gains)
    np.testing.assert_allclose(colors[:2], [[100, 120, 80]] * 2, atol=1)
    np.testing.assert_allclose(apart, [150 / 5, 0.0, np.nan], atol=0.3)


def test_the_uncoloured_take_the_nearest_colour() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0.2, 0, 0], [0.9, 0, 0]])
    colors = np.array([[10, 20, 30], [200, 100, 50], [0, 0, 0], [0, 0, 0]], np.uint8)
    known = np.array([True, True, False, False])
    filled_in = fill_missing_colors(colors, known, points)
    assert filled_in.tolist() == [[10, 20, 30], [200, 100, 50], [10, 20, 30], [200, 100, 50]]
    assert fill_missing_colors(colors, np.zeros(4, bool), points).tolist() == [[128] * 3] * 4


def fan(angle_rad: float, n: int) -> np.ndarray:
    """Unit vectors [n, 3] spread evenly over an arc."""
    at = np.linspace(-angle_rad / 2, angle_rad / 2, n)
    return np.stack([np.sin(at), np.zeros(n), np.cos(at)], axis=1).astype(np.float32)


def gathered(directions: np.ndarray) -> ViewDirections:
    """Rays of one vertex that all the directions see."""
    rays = ViewDirections.empty(1)
    for direction in directions:
        rays.add(np.array([0]), direction[None])
    return rays


@given(st.floats(0.001, 3.1), st.integers(2, 12), st.integers(0, 1000))
def test_the_widest_angle_of_a_fan_is_its_own_in_whatever_order_the_photos_come(angle, n, seed):
    directions = fan(angle, n)[np.random.default_rng(seed).permutation(n)]
    rays = gathered(directions)
    assert rays.views[0] == n
    assert rays.angles()[0] == pytest.approx(angle, rel=1e-2, abs=1e-3)


def test_of_scattered_directions_the_angle_is_hardly_narrower_than_the_widest_and_never_wider():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        directions = rng.normal(size=(rng.integers(2, 20), 3)) * [1, 1, 0.3] + [0, 0, rng.uniform(0, 3)]
        directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
        widest = np.arccos(np.clip((directions @ directions.T).min(), -1, 1))
        shares.append(gathered(directions).angles()[0] / widest)
    assert max(shares) < 1.001
    assert np.mean(shares) > 0.97
    assert min(shares) > 0.7


def test_photos_come_to_the_vertices_they_see_and_no_others():
    rays = ViewDirections.empty(3)
    left, right = fan(1.0, 2)
    rays.add(np.array([0, 2]), np.stack([left, left]))
    rays.add(np.array([2]), right[None])
    assert rays.views.tolist() == [1, 0, 2]
    np.testing.assert_allclose(rays.angles(), [0, 0, 1.0], atol=1e-5)


def test_directions_point_at_the_camera():
    found = directions_to(np.array([0.0, 0.0, 5.0]), np.array([[0, 0, 0], [0, 5, 5]], np.float32))
    np.testing.assert_allclose(found, [[0, 0, 1], [0, -1, 0]], atol=1e-6)


@given(*(st.tuples(kind, kind).map(sorted) for kind in (st.integers(0, 40), st.floats(0, np.pi), st.floats(0, 200))))
def test_confidence_lies_in_0_to_1_and_more_evidence_never_lowers_it(photos, widths, residuals):
    (n, m), (a, b), (off, worse) = photos, widths, residuals
    views, angles = np.array([n, m]), np.array([a, b], np.float32)
    less, more = vertex_confidence(views, angles, np.array([worse, off]), 5.0)
    assert 0 <= less <= more + 1e-6
    assert more <= 1


def test_one_photo_gives_no_confidence_and_the_constant_means_what_it_says():
    half = 2 * np.arcsin(HALF_CONFIDENCE_SINE / np.sqrt(2))
    found = vertex_confidence(np.array([0, 1, 2, 2]), np.array([0, 0, half, half]), np.array([0.0, 0, 0, 15]), 5.0)
    np.testing.assert_allclose(found, [0, 0, 0.5, 0.5 * np.exp(-1)], atol=1e-6)
    assert np.rad2deg(half) == pytest.approx(41, abs=0.5)
    assert color_agreement_weight(np.array([4.0, 10.0]), 5.0) == pytest.approx([1, np.exp(-0.5)])


def test_confidence_orders_vertices_as_the_spread_of_their_triangulated_depth_does():
    """Depth of a point from noisy rays in a fan, by least squares, many times over."""
    rng = np.random.default_rng(1)
    spread, believed = [], []
    for n, angle in [(2, 0.05), (2, 0.3), (6, 0.3), (3, 1.0), (12, 1.0), (8, 2.0)]:
        directions = fan(angle, n).astype(float)
        across = np.stack([directions[:, 2], np.zeros(n), -directions[:, 0]], axis=1)
        offsets = rng.normal(0, 0.01, (4000, n))  # of each ray, across itself
        solve = np.linalg.pinv(across[:, [0, 2]])
        spread.append((offsets @ solve.T)[:, 1].std())
        believed.append(vertex_confidence(np.array([n]), np.array([angle]), np.zeros(1), 5.0)[0])
    assert np.argsort(spread).tolist() == np.argsort(believed)[::-1].tolist()


def test_stereo_confirms_what_lies_at_its_depth_and_denies_what_it_sees_through() -> None:
    stereo = np.array([[10.0, 10.0], [0.0, 8.0]])
    places = np.array([[0.2, 0.2], [0.7, 0.2], [0.2, 0.9], [0.7, 0.9], [0.999, 0.999]])
    depth = np.array([10.02, 9.0, 9.0, 9.0, 7.97])
    found = VisibleVertices(np.arange(5), depth, np.ones(5), places)
    assert depth_votes(found, stereo, 0.01).tolist() == [1, -1, 0, 0, 1]
    assert depth_votes(found, stereo, 1.1).tolist() == [1, 1, 0, 1, 1]
    assert len(depth_votes(VisibleVertices(np.zeros(0, int), *np.zeros((2, 0)), np.zeros((0, 2))), stereo, 0.1)) == 0


def test_a_sensor_is_believed_the_less_the_farther_it_measured() -> None:
    measured = np.array([[1.0, 4.0]])
    found = VisibleVertices(np.arange(2), np.array([0.98, 3.98]), np.ones(2), np.array([[0.2, 0.5], [0.7, 0.5]]))
    assert depth_votes(found, measured, 0.001, 0.0015).tolist() == [-1, 1]  # 2 cm are 13 deviations of 1 m, 1 of 4 m
    assert depth_votes(found, measured, 0.03, 0.0015).tolist() == [1, 1]
