"""The list of loss terms: its configuration, its schedule, and its sum."""

import pytest
import torch
from pydantic import ValidationError

from quoin.fields.losses import LOSS_TERMS, LossInputs, LossWeightsConfig, TrainBatch, weighted_loss
from quoin.fields.rays import RaySamples, RaySegments, RenderOutput

NAMES = [term.name for term in LOSS_TERMS]


def test_every_term_has_a_weight_and_its_default():
    assert len(set(NAMES)) == len(NAMES)
    weights = LossWeightsConfig()
    assert {name: getattr(weights, name) for name in NAMES} == {term.name: term.weight for term in LOSS_TERMS}
    with pytest.raises(ValidationError):
        LossWeightsConfig(sky=-1.0)


def test_schedules_of_weights():
    weights = LossWeightsConfig(curvature=2.0, photoconsistency=1.0, photoconsistency_start=0.1)
    at = [dict(zip(NAMES, weights.at(progress), strict=True)) for progress in (0.0, 0.005, 0.1, 1.0)]
    assert [w["curvature"] for w in at] == [0.0, 1.0, 2.0, 2.0]
    assert [w["photoconsistency"] for w in at] == [0.0, 0.0, 1.0, 1.0]
    assert {w["sky"] for w in at} == {0.1}


def test_the_loss_is_the_weighted_sum_and_missing_inputs_count_nothing():
    n, p = 4, 3
    ray, point = torch.zeros(n, 3), torch.zeros(p, 3)
    rays = RaySegments(ray, ray, ray[:, 0], ray[:, 0], torch.ones(n, dtype=torch.bool))
    samples = RaySamples(rays, torch.zeros(n, 2), torch.zeros(n, 2))
    sdf, gradient = torch.full((3 * p,), 0.5), torch.zeros(3 * p, 3)
    gradient[:, 0] = 3.0
    out = RenderOutput(
        ray + 0.25, ray, ray[:, 0], ray[:, 0], ray, torch.zeros(n, 2), torch.zeros(n, 2, 3) + 3.0**0.5, sdf, gradient
    )
    batch = TrainBatch(
        pixels=torch.zeros(n, 3, dtype=torch.long),
        color=ray,
        color_weight=torch.ones(n),
        jitter=ray,
        background_jitter=ray,
        points=point,
        point_weight=torch.ones(p),
        point_normal=point,
        free_points=point,
        free_margin=torch.full((p,), 0.75),
        uniform=point,
        source_priority=point,
        interior_points=None,
        interior_weight=None,
    )
    expected = {"color": 0.25, "color_squared": 0.0625, "eikonal": 4.0, "sfm_points": 0.5, "free_space": 0.25}
    weights = torch.arange(1.0, len(NAMES) + 1)
    loss, terms = weighted_loss(LossInputs(out, samples, batch, None, None), weights)
    got = dict(zip(NAMES, terms.tolist(), strict=True))
    for name in NAMES:
        assert got[name] == pytest.approx(expected.get(name, 0.0), abs=1e-2), name
    assert float(loss) == pytest.approx(float((terms * weights).sum()))
