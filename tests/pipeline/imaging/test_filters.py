"""Filters: gray, contrast and samples worked out by hand, and their twins in torch."""

from __future__ import annotations

import numpy as np
import torch

from quoin.pipeline.imaging.filters import local_contrast, rgb_to_gray, sample_bilinear, sample_nearest
from quoin.stages.priors.stereo import hypotheses
from quoin.stages.train.data import photo_set


def test_gray_is_the_luma_of_jpeg() -> None:
    rgb = np.array([[[255, 255, 255], [100, 0, 0], [0, 100, 0], [0, 0, 100]]], np.uint8)
    np.testing.assert_allclose(rgb_to_gray(rgb), [[255, 29.9, 58.7, 11.4]], rtol=1e-6)
    np.testing.assert_allclose(rgb_to_gray(rgb, 255.0)[0, 0], 1.0, rtol=1e-6)
    assert rgb_to_gray(rgb).dtype == np.float32


def test_local_contrast_is_the_standard_deviation_of_a_window_as_in_torch() -> None:
    gray = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    gray[:, 15:] = 0.5
    contrast = local_contrast(gray)
    np.testing.assert_allclose(contrast[6, 7], gray[4:9, 5:10].std(), atol=1e-5)
    assert contrast[:, 18:].max() < 1e-3
    inner = slice(2, -2)  # twins differ at the border
    twin = hypotheses.local_contrast(torch.from_numpy(gray)).numpy()
    np.testing.assert_allclose(twin[inner, inner], contrast[inner, inner], atol=1e-3)


def test_bilinear_samples_read_pixel_centers_and_blend_between() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :, 0] = np.array([0, 40, 80, 120])
    image[:, :, 1] = np.array([[0], [200]])
    uv = np.array([[0.375, 0.25], [0.5, 0.5], [0.0, 0.0], [0.999, 0.999]], np.float32)
    samples = sample_bilinear(image, uv)
    assert samples[:, 0].tolist() == [40, 60, 0, 120]
    assert samples[:, 1].tolist() == [0, 100, 0, 200]
    assert sample_bilinear(np.full((1, 1, 3), 7, np.uint8), uv).tolist() == [[7, 7, 7]] * 4


def test_bilinear_samples_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    image, uv = rng.integers(0, 256, (12, 17, 1)).astype(np.uint8), rng.uniform(0.1, 0.9, (200, 2))
    xy = torch.from_numpy((uv * [17, 12]).astype(np.float32))[None]
    size = torch.tensor([[17, 12]])
    twin, inside = photo_set.sample_bilinear(torch.from_numpy(image.ravel()), torch.tensor([0]), size, xy)
    assert inside.all()
    np.testing.assert_allclose(twin[0].numpy() * 255, sample_bilinear(image, uv)[:, 0], atol=0.51)  # rounded


def test_nearest_samples_are_pixels() -> None:
    image = np.arange(6).reshape(2, 3)
    assert sample_nearest(image, np.array([[0.0, 0.0], [0.34, 0.4], [0.99, 0.6], [1.0, 1.0]])).tolist() == [0, 1, 5, 5]
