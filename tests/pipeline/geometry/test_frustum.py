"""What a camera may see is found without leaving out a point that it does."""

from __future__ import annotations

import numpy as np
import pytest

from quoin.pipeline.geometry.cameras import look_at, project
from quoin.pipeline.geometry.frustum import frustum_query

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
