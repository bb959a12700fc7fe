"""Floors are level and walls upright: what the layout asks of normals, and what it learns."""

import numpy as np
import pytest
import torch

from quoin.fields.field.heads import SemanticHead
from quoin.fields.losses import LossWeightsConfig, manhattan_loss, normals_loss, semantic_loss
from quoin.pipeline.imaging.labels import CEILING, FLOOR, OTHER, SURFACE_LABELS, WALL
from quoin.pipeline.scene import priors
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.scene.manhattan import ManhattanFrame, write_manhattan_frame
from quoin.pipeline.scene.priors import PlaneIndexMap, write_plane_index, write_scene_planes
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.step import LOSS_STATS, compute_loss
from quoin.stages.train.trained_block import export_state
from tests.fixtures import ball_scene

UP = np.array([0.0, 0.0, 1.0])


def turned(degrees):
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), np.sin(angle), 0.0], [-np.sin(angle), np.cos(angle), 0.0]])


def head(walls=None):
    torch.manual_seed(0)
    return SemanticHead(4, UP, turned(0) if walls is None else walls)


def test_the_tilt_is_0_where_a_surface_stands_as_its_kind_should_and_never_for_others():
    normals = torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0], [0, -1, 0], [0.5**0.5, 0.5**0.5, 0]])
    manhattan_error = {kind: head().manhattan_error(normals)[:, i].tolist() for i, kind in enumerate(SURFACE_LABELS)}
    assert manhattan_error[OTHER] == [0, 0, 0, 0, 0]
    assert manhattan_error[FLOOR] == pytest.approx([0, 2, 1, 1, 1], abs=1e-6)
    assert manhattan_error[CEILING] == pytest.approx([2, 0, 1, 1, 1], abs=1e-6)
    assert manhattan_error[WALL] == pytest.approx([2, 2, 0, 0, 1 - np.sqrt(0.5)], abs=1e-6)


def test_a_world_with_more_walls_asks_for_the_nearest():
    octagon = np.concatenate([turned(0), turned(45)])
    assert head(octagon).manhattan_error(torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]))[0, -1] < 1e-6


def test_the_walls_are_turned_to_where_normals_point():
    """A first guess that is 6 degrees off is mended by normals alone (ManhattanSDF, joint optimisation)."""
    made = head(turned(6.0))
    rng = np.random.default_rng(0)
    normals = torch.tensor(rng.choice(np.concatenate([turned(0), -turned(0)]), 500), dtype=torch.float32)
    normals = torch.nn.functional.normalize(normals + 0.05 * torch.randn(500, 3), dim=1)
    sure = torch.tensor([-20.0, -20.0, -20.0, 20.0]).expand(500, 4)
    optimizer = torch.optim.Adam([made.theta], lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        manhattan_loss(sure, made.manhattan_error(normals), torch.ones(500)).backward()
        optimizer.step()
    assert np.degrees(made.theta.item()) == pytest.approx(-6.0, abs=0.3)


def test_labels_are_learnt_from_a_guess_and_where_there_is_none_nothing_is_asked():
    logits = torch.zeros(3, len(SURFACE_LABELS), requires_grad=True)
    guess = torch.zeros(3, len(SURFACE_LABELS))
    guess[0, SURFACE_LABELS.index(WALL)] = 1.0
    loss = semantic_loss(logits, guess, torch.tensor([1.0, 1.0, 0.0]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(len(SURFACE_LABELS)) / 2)
    assert logits.grad[0, SURFACE_LABELS.index(WALL)] < 0
    assert (logits.grad[1:] == 0).all()


def test_furniture_is_left_alone():
    """Where a pixel is thought to show neither floor nor wall, its normal has no slope."""
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    normals.requires_grad_(True)
    other = torch.tensor([20.0, -20.0, -20.0, -20.0]).expand(50, 4)
    manhattan_loss(other, head().manhattan_error(normals), torch.ones(50)).backward()
    assert normals.grad.abs().max() < 1e-6


def test_a_block_with_walls_trains_its_labels_and_one_without_has_none(tmp_path):
    """Labels and the frame of the walls come from the store; the model that is kept to render with leaves them out."""
    run = ball_scene.make_run(tmp_path, n_photos=3, width=64, height=48)
    write_scene_planes(run, UP[None], np.zeros(1))
    write_plane_index(run, 0, PlaneIndexMap(np.full((48, 64), -1), 0))
    priors.write_labels(run, 1, np.full((24, 32), FLOOR, np.uint8), 1)
    small = {"rays": 64, "points": 64, "patches": 16, "steps": 10}
    without = ball_scene.start(run, TrainConfig(**small))[0]
    assert without.model.semantic is None
    assert without._batch().semantic is None
    write_manhattan_frame(run, ManhattanFrame(UP, turned(10), np.ones(2), np.full(2, 3), 0.9))
    made = ball_scene.start(run, TrainConfig(**small))[0]
    seen = []
    made._loss = lambda *inputs: seen.append((inputs, compute_loss(*inputs))) or seen[-1][1]
    made.train_step()
    inputs, (_, stats, out) = seen[0]
    floor = inputs[2].batch.semantic[:, SURFACE_LABELS.index(FLOOR)]
    assert floor.tolist() == (read_partition(run).blocks[0].photo_index[inputs[2].batch.pixels[:, 0]] == 1).tolist()
    assert float(stats[LOSS_STATS.index("semantic")]) == pytest.approx(
        semantic_loss(out.semantic_logits.detach(), inputs[2].batch.semantic, inputs[2].batch.color_weight).item()
    )
    assert float(stats[LOSS_STATS.index("manhattan")]) > 0
    assert made.model.semantic.theta.grad is not None
    kept, _ = export_state(made.model, made.cache, made.config)
    assert not any(name.startswith("semantic") for name in kept)
    assert (
        ball_scene.start(run, TrainConfig(**small, losses=LossWeightsConfig(manhattan=0.0)))[0].model.semantic is None
    )


def test_slopes_follow_the_normals_that_are_known():
    gradient = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]], requires_grad=True)
    normal = torch.tensor([[1.0, 0, 0], [0, -1.0, 0], [0, 0, 0]])
    loss = normals_loss(gradient, normal, torch.tensor([1.0, 3.0, 5.0]))
    assert loss.item() == pytest.approx(2.0 * 3 / 4)  # along its own, against it, and not known
    loss.backward()
    assert (gradient.grad[2] == 0).all()


def test_points_on_planes_bring_their_normals_and_others_none(tmp_path):
    run = ball_scene.make_run(tmp_path, n_photos=3, width=320, height=240)
    write_scene_planes(run, UP[None], np.zeros(1))
    number = np.full((240, 320), -1)
    number[150:] = 0  # the foot of the picture shows the floor
    write_plane_index(run, 0, PlaneIndexMap(number, 0))
    known = ball_scene.start(run, TrainConfig(rays=64, points=64, patches=16, steps=10))[0].data.supervision
    on_plane = (known.normal != 0).any(dim=1)
    assert on_plane.any()
    assert torch.equal(known.normal[on_plane], torch.tensor(UP, dtype=torch.float32).expand(int(on_plane.sum()), 3))
    assert (known.sfm[on_plane] == 0).all()
    assert not on_plane[known.sfm == 1].any()
    assert on_plane.sum() == (known.sfm == 0).sum()
