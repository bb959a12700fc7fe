"""Exposures of photos from places that several of them show."""

from __future__ import annotations

import numpy as np

from quoin.pipeline.imaging.exposure import photo_gains


def test_gains_are_found_up_to_a_common_factor() -> None:
    rng = np.random.default_rng(0)
    true_gain = np.exp(rng.normal(0, 0.15, (6, 3)))
    true_gain /= np.exp(np.log(true_gain).mean(axis=0))
    albedo = rng.uniform(60, 160, (4000, 3))
    photo = np.stack([rng.permutation(6)[:4] for _ in range(4000)])
    rgb = albedo[:, None] * true_gain[photo]
    passer_by = rng.random((4000, 4)) < 0.15
    rgb[passer_by] = rng.uniform(20, 230, (passer_by.sum(), 3))
    found = photo_gains(np.clip(rgb, 0, 255).astype(np.uint8), photo, np.ones((4000, 4), bool), 6, seed=0)
    found /= np.exp(np.log(found).mean(axis=0))
    np.testing.assert_allclose(found, true_gain, rtol=0.02)


def test_photos_that_share_nothing_keep_their_exposure() -> None:
    there = np.stack([np.ones(50, bool), np.zeros(50, bool)], axis=1)
    found = photo_gains(np.full((50, 2, 3), 100, np.uint8), np.zeros((50, 2), np.int64), there, 3, seed=0)
    np.testing.assert_allclose(found, 1.0)
