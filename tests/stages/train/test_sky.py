"""Nothing stands before sky: the term, and the pixels it is asked of."""

import numpy as np
import pytest
import torch

from quoin.fields.losses import LossWeightsConfig, sky_loss
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import priors
from quoin.pipeline.scene.blocks import read_partition
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.step import LOSS_STATS, compute_loss
from tests.fixtures import ball_scene

SMALL = {
    "steps": 20,
    "rays": 64,
    "points": 64,
    "patches": 16,
    "encoding": {
        "kind": "hash",
        "levels": 2,
        "base_resolution": 8,
        "max_resolution": 16,
        "log2_table": 10,
        "initial_levels": 2,
    },
    "sdf_cache": {"resolution": 32},
    "held_out_share": 0.0,
}


def test_the_slope_is_that_of_the_cross_entropy_and_of_sky_only():
    opacity = torch.tensor([0.0, 0.5, 0.9, 0.5, 0.5], requires_grad=True)
    sky, weight = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    loss = sky_loss(opacity, sky, weight)
    assert float(loss.detach()) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 5, rel=0.01)
    loss.backward()
    np.testing.assert_allclose(opacity.grad, np.array([1.0, 2.0, 10.0, 0.0, 0.0]) / 5, rtol=0.01)
    opaque = torch.ones(1, requires_grad=True)
    sky_loss(opaque, torch.ones(1), torch.ones(1)).backward()
    assert 100 < float(opaque.grad) < np.inf


def test_photos_know_their_sky_and_leave_out_what_passes(tmp_path):
    """Labels of half the photo's size; the term is that of the rays that show sky, and absent without a weight."""
    run = ball_scene.make_run(tmp_path, n_photos=3, width=64, height=48)
    shown = np.zeros((24, 32), np.uint8)
    shown[:10], shown[20:] = labels.SKY, labels.TRANSIENT
    priors.write_labels(run, 1, shown, 1)
    made = ball_scene.start(run, TrainConfig(**SMALL))[0]
    place = np.flatnonzero(read_partition(run).blocks[0].photo_index == 1)[0]
    pixels = torch.tensor([[place, 5, y] for y in (0, 19, 20, 39, 40, 47)] + [[1 - min(place, 1), 5, 0]])
    assert made.photos.labels_at(pixels, labels.SKY)[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert made.photos.colors(pixels)[1].tolist() == [1, 1, 1, 1, 0, 0, 1]

    seen = []
    made._loss = lambda *inputs: seen.append((inputs, compute_loss(*inputs))) or seen[-1][1]
    made.train_step()
    inputs, (_, stats, out) = seen[0]
    expected = sky_loss(out.opacity, inputs[2].batch.sky, inputs[2].batch.color_weight)
    assert inputs[2].batch.sky.any()
    assert float(stats[LOSS_STATS.index("sky")]) == pytest.approx(float(expected.detach()))

    without = ball_scene.start(run, TrainConfig(**SMALL, losses=LossWeightsConfig(sky=0.0)))[0]
    assert without._batch().sky is None
