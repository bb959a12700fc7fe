"""The benchmark of a GPU step does two of its steps on a CPU, so that it is found broken before a GPU is there."""

from __future__ import annotations

import pytest

from benchmarks import gpu
from benchmarks.ball import make_ball
from quoin.stages.train.config import SdfCacheConfig, TrainConfig


def test_a_step_is_measured_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WARM_UP_STEPS", "N_TIMING_ROUNDS", "PROFILED_STEPS"):
        monkeypatch.setattr(gpu, name, 1)
    small = TrainConfig(sdf_cache=SdfCacheConfig(resolution=32))
    monkeypatch.setattr(gpu, "TrainConfig", lambda: small)
    row = gpu.measure_step(make_ball(64, 48), 64, 1, "cpu")
    assert row["rays_per_s"] > 0
    assert row["kernel_shares"]


def test_a_grid_is_measured_on_a_cpu() -> None:
    row = gpu.measure_grid("cpu", 1 << 10)
    assert row["points"] == 1 << 10
    assert row["pytorch"]["with_backward_s"] > 0
