"""Colours: best samples kept, a passer-by outvoted."""

from __future__ import annotations

import numpy as np

from quoin.stages.fuse.colors import ColorSamples, fill_missing_colors, vertex_colors


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
