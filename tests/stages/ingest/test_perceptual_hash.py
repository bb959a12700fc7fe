"""Perceptual hash and sharpness."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter1d

from quoin.stages.ingest.near_duplicates import MAX_HASH_DISTANCE
from quoin.stages.ingest.perceptual_hash import (
    GRAY_EDGE_PX,
    gray_thumbnail,
    image_signature,
    perceptual_hash,
    photo_sharpness,
)
from tests.stages.ingest.scenes import as_rgb, saved, texture, view


def apart(first: np.ndarray, second: np.ndarray) -> int:
    return (image_signature(first).bits ^ image_signature(second).bits).bit_count()


def test_the_grey_copy_is_small_and_keeps_the_shape():
    assert gray_thumbnail(np.zeros((1000, 2000, 3), np.uint8)).shape == (GRAY_EDGE_PX // 2, GRAY_EDGE_PX)
    assert gray_thumbnail(np.zeros((30, 20, 3), np.uint8)).shape == (30, 20)
    assert gray_thumbnail(np.zeros((2000, 1, 3), np.uint8)).shape == (GRAY_EDGE_PX, 1)


def test_hashes_of_one_picture_are_near_and_of_two_far_apart():
    photo = view(0.0)
    for other in (saved(photo, 30), photo[:291, 12:], as_rgb(255.0 * (photo[..., 0] / 255.0) ** 1.8)):
        assert apart(photo, other) <= MAX_HASH_DISTANCE
    others = [image_signature(as_rgb(texture(i, 150, 200))).bits for i in range(12)]
    apart_of_others = [(a ^ b).bit_count() for a, b in itertools.combinations(others, 2)]
    assert np.mean(apart_of_others) == pytest.approx(32, abs=3)
    assert min(apart_of_others) > MAX_HASH_DISTANCE
    assert perceptual_hash(np.zeros((20, 30), np.float32)) == 0


def test_sharpness_falls_with_blur_and_not_with_contrast_or_exposure():
    grey = gaussian_filter(np.kron(np.random.default_rng(0).integers(0, 2, (25, 32)), np.ones((16, 16))), 0.5)
    photo = (40.0 + 150.0 * grey).astype(np.float32)
    values = [photo_sharpness(gaussian_filter(photo, blur).astype(np.float32)) for blur in (0.1, 1.0, 2.0, 4.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.15
    assert values[-1] < 0.03
    assert photo_sharpness(0.5 * photo) == pytest.approx(values[0], rel=1e-3)


def test_motion_and_a_blurred_background_are_told_apart():
    photo = texture(1, 384, 512)
    sharp = photo_sharpness(photo.astype(np.float32))
    moved = uniform_filter1d(photo, 21, axis=1)
    assert photo_sharpness(moved.astype(np.float32)) < 0.35 * sharp
    portrait = gaussian_filter(photo, 5.0)
    portrait[:, 180:330] = photo[:, 180:330]
    assert photo_sharpness(portrait.astype(np.float32)) > 0.7 * sharp


def test_where_there_are_no_edges_sharpness_is_unknown():
    assert math.isnan(photo_sharpness(np.full((300, 400), 80.0, np.float32)))
    assert math.isnan(photo_sharpness(np.zeros((40, 500), np.float32)))
    slope = np.repeat(np.linspace(0, 255, 400, dtype=np.float32)[None], 300, axis=0)
    assert math.isnan(photo_sharpness(slope))
