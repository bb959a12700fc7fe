"""Exposures of the whole scene from its points."""

from __future__ import annotations

import numpy as np

from quoin.stages.priors.estimation import VIEWS_PER_POINT, estimate_exposures, sample_views


def test_every_point_gives_a_few_views_each_once() -> None:
    rng = np.random.default_rng(0)
    point = np.repeat(np.arange(50), rng.integers(1, 20, 50))
    rng.shuffle(point)
    rows = sample_views(point, 0)
    assert len(np.unique(rows[:, 0])) == len(rows)
    number = np.bincount(point[rows[:, 0]], minlength=50)
    assert number.tolist() == np.minimum(np.bincount(point), VIEWS_PER_POINT).tolist()
    assert len(np.unique(np.stack([point[rows[:, 0]], rows[:, 1]]), axis=1).T) == len(rows)
    assert len(sample_views(np.zeros(0, np.int64), 0)) == 0


def test_exposures_and_tints_come_out_of_what_photos_share() -> None:
    """Places on a wall that photos see shifted; every photo brighter or darker, some points on a passer-by."""
    rng = np.random.default_rng(1)
    wall = rng.uniform(50, 110, (40, 120, 3))
    gains = np.exp(rng.normal(0, 0.25, (5, 3)))
    shift = [0, 8, 16, 24, 32]
    photos = [np.clip(wall[:, s : s + 80] * g, 0, 255).astype(np.uint8) for s, g in zip(shift, gains, strict=True)]
    photos[2][:, :20] = (10, 250, 10)
    photos.append(np.full((40, 80, 3), 77, np.uint8))
    sizes = np.array([[160, 80]] * 6)  # pictures are read at half their size
    at = rng.uniform([0, 0], [120, 40], (1500, 2))
    photo, point, xy = [], [], []
    for index, left in enumerate(shift):
        seen = np.flatnonzero((at[:, 0] >= left) & (at[:, 0] < left + 80))
        photo.append(np.full(len(seen), index))
        point.append(seen)
        xy.append(2 * (at[seen] - [left, 0]))
    tracks = np.concatenate(photo), np.concatenate(point), np.concatenate(xy)
    found = estimate_exposures(photos.__getitem__, sizes, *tracks, seed=0)
    ratio = np.log(found[:5] / gains)
    np.testing.assert_allclose(ratio - ratio.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(found[5], 1.0)
