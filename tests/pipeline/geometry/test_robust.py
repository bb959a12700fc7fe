"""Robust statistics: the spread of a normal distribution, whatever a few outliers say."""

from __future__ import annotations

import numpy as np
import pytest

from quoin.pipeline.geometry.robust import inlier_limit, robust_sigma


def test_robust_sigma_of_normal_values() -> None:
    values = np.random.default_rng(0).normal(0, 2.0, 100_000)
    values[::20] = 1e6
    assert robust_sigma(values) == pytest.approx(2.0, rel=0.08)
    assert robust_sigma(np.array([-1.0, 1.0, 1.0])) == pytest.approx(1.4826)


def test_inlier_limit() -> None:
    assert inlier_limit(np.array([1.0, 2.0, 300.0])) == pytest.approx(3 * 1.4826 * 2)
    assert inlier_limit(np.zeros(4)) == 1e-9
