"""Undistorted photos against renderings through the pinhole camera itself."""

import numpy as np
import pytest

from quoin.pipeline.imaging.filters import build_pyramid
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.undistortion import fit_pinhole, undistort_photo
from tests.stages.pose.room import cameras_around, render

POSE = cameras_around(3)[1]


@pytest.mark.parametrize("k", [-0.15, 0.0, 0.1])
@pytest.mark.parametrize("edge", [200, 1600])
def test_undistorted_photo_is_what_the_pinhole_sees(k: float, edge: int) -> None:
    camera = Camera("SIMPLE_RADIAL", 400, 300, (380.0, 205.0, 148.0, k))
    pinhole = fit_pinhole(camera, edge)
    assert max(pinhole.width, pinhole.height) <= min(edge, 1.2 * 400)
    rgb, mask = undistort_photo(render(POSE, camera), None, camera, pinhole)
    assert rgb.shape == (pinhole.height, pinhole.width, 3)
    ideal = Camera("PINHOLE", pinhole.width, pinhole.height, tuple(pinhole.intrinsics))
    truth = render(POSE, ideal, factor=4 if edge == 200 else 2)
    use = mask == 255
    assert use.mean() > 0.97
    difference = np.abs(rgb.astype(float) - truth)[use]
    assert np.mean(difference) < 4.0
    # half a pixel off would be told at once
    shifted = np.abs(rgb[:, 1:].astype(float) - truth[:, :-1])[use[:, 1:]]
    assert np.mean(shifted) > 2 * np.mean(difference)


def test_no_distortion_keeps_the_pixels() -> None:
    camera = Camera("SIMPLE_PINHOLE", 64, 48, (60.0, 30.0, 25.0))
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    out, mask = undistort_photo(rgb, None, camera, fit_pinhole(camera, 1600))
    assert np.array_equal(out, rgb)
    assert (mask == 255).all()
    assert fit_pinhole(camera, 1600).intrinsics.tolist() == [60.0, 60.0, 30.0, 25.0]


def test_the_users_mask_moves_with_the_photo() -> None:
    camera = Camera("SIMPLE_RADIAL", 400, 300, (380.0, 200.0, 150.0, -0.15))
    mask = np.zeros((300, 400), np.uint8)
    mask[:60, :80] = 255
    pinhole = fit_pinhole(camera, 1600)
    _, use = undistort_photo(np.zeros((300, 400, 3), np.uint8), mask, camera, pinhole)
    corner = pinhole.pixels(camera, np.array([[80.0, 60.0]]))[0]
    ys, xs = np.nonzero(use)
    assert abs(xs.max() + 1 - corner[0]) < 3
    assert abs(ys.max() + 1 - corner[1]) < 3


def test_a_strong_lens_grows_the_canvas_by_a_fifth_at_most() -> None:
    camera = Camera("SIMPLE_RADIAL", 400, 300, (200.0, 200.0, 150.0, -0.25))
    pinhole = fit_pinhole(camera, 1600)
    assert pinhole.width <= 480
    assert pinhole.height <= 360
    rgb, mask = undistort_photo(np.full((300, 400, 3), 200, np.uint8), None, camera, pinhole)
    assert (rgb[mask == 255] >= 198).all()  # no blank pixel is said to be photo


def test_pyramid_averages_and_drops_odd_edges() -> None:
    rgb = np.zeros((5, 7, 3), np.uint8)
    rgb[0, 0] = 100
    rgb[0, 1] = 50
    levels = build_pyramid(rgb, 3)
    assert [level.shape[:2] for level in levels] == [(5, 7), (2, 3), (1, 1)]
    assert levels[1][0, 0, 0] == 38  # 150 / 4, rounded
    assert levels[2][0, 0, 0] == 10  # 38 / 4, rounded


@pytest.mark.parametrize(
    "params",
    [
        ("SIMPLE_RADIAL", (380.0, 200.0, 150.0, 9.0)),
        ("SIMPLE_RADIAL", (380.0, 200.0, 150.0, -4.0)),
        ("SIMPLE_RADIAL", (20.0, 200.0, 150.0, -0.9)),
        ("SIMPLE_RADIAL", (90000.0, 200.0, 150.0, 50.0)),
        ("RADIAL", (150.0, 190.0, 160.0, -3.0, 8.0)),
        ("OPENCV", (300.0, 320.0, 150.0, 190.0, -2.0, 5.0, 0.4, -0.4)),
    ],
)
def test_a_wild_estimate_does_not_blow_up_the_canvas(params: tuple) -> None:
    camera = Camera(params[0], 400, 300, params[1])
    pinhole = fit_pinhole(camera, 16000)
    assert 320 <= pinhole.width <= 480
    assert 240 <= pinhole.height <= 360
    assert np.isfinite(pinhole.intrinsics).all()
    rgb, mask = undistort_photo(np.full((300, 400, 3), 200, np.uint8), None, camera, pinhole)
    assert rgb.shape == (pinhole.height, pinhole.width, 3)
    assert (rgb[mask == 255] >= 198).all()
