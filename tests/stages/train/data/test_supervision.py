"""Occupancy: labels against the analytic truth, and a network that learns a ball from them."""

import math

import numpy as np
import pytest
import torch
import trimesh

from quoin.fields.encoding.fourier import FrequencyEncoding
from quoin.fields.losses import occupancy_loss
from quoin.fields.mise import mise
from quoin.stages.fuse.marching_cubes import EdgeKeys, marching_cubes, positions_voxels
from quoin.stages.train.data.initial_sdf import DepthMap
from quoin.stages.train.data.supervision import (
    MAX_INTERIOR_DEPTH,
    interior_points_behind,
    occupancy_from_depth,
    occupancy_from_mesh,
)

RADIUS = 0.6


def cube_points(n, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 3))


def test_the_loss_is_the_mean_code_length():
    occupied = torch.tensor([True, False, True])
    probability = torch.tensor([0.9, 0.2, 0.5])
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.5)) / 3
    logits = torch.logit(probability)
    assert float(occupancy_loss(logits, occupied, torch.ones(3))) == pytest.approx(expected, abs=1e-6)
    without = occupancy_loss(logits, occupied, torch.tensor([1.0, 1.0, 0.0]))
    assert float(without) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2, abs=1e-6)
    assert float(occupancy_loss(logits, occupied, torch.zeros(3))) == 0.0


def test_points_behind_are_just_behind_and_as_many_in_each_factor_of_distance():
    n = 4000
    draw = torch.rand(n, generator=torch.Generator().manual_seed(0))
    origins, directions = torch.tensor([-2.0, 0.0, 0.0]).expand(n, 3), torch.tensor([1.0, 0.0, 0.0]).expand(n, 3)
    reach = torch.where(torch.arange(n) < n // 2, 2.3, 2.99)  # at x = 0.3, and 0.01 before the block's end
    points, known = interior_points_behind(origins, directions, reach, draw, torch.ones(3))
    depth = (points - origins).norm(dim=1) - reach
    assert (points[:, 1:] == 0).all()
    assert float(depth.min()) > 0 and float(depth.max()) <= MAX_INTERIOR_DEPTH + 1e-6
    for share in (0.1, 0.01):
        third = 1 / 3 if share == 0.1 else 2 / 3
        assert float((depth > MAX_INTERIOR_DEPTH * share).float().mean()) == pytest.approx(third, abs=0.03)
    assert (known[: n // 2] == 1).all()
    assert torch.equal(known[n // 2 :], (depth[n // 2 :] <= 0.01).float())


@pytest.mark.parametrize("shift", [0.0, 40_000.0])  # metres from the origin, as in a town
def test_labels_of_a_mesh_are_those_of_the_ball_it_stands_for(shift):
    ball = trimesh.creation.icosphere(4, RADIUS)
    points = cube_points(20_000)
    inside = occupancy_from_mesh(ball.vertices + shift, ball.faces, points + shift)
    sdf = np.linalg.norm(points, axis=1) - RADIUS
    clear = np.abs(sdf) > 2e-3  # how far the middles of the faces lie below the ball
    assert np.array_equal(inside[clear], sdf[clear] < 0)


def test_labels_hold_where_rays_graze_edges_and_vertices():
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    points = np.stack(np.meshgrid(*[np.linspace(-1, 1, 17)] * 3, indexing="ij"), -1).reshape(-1, 3)
    reach = np.abs(points).max(axis=1)
    inside = occupancy_from_mesh(box.vertices, box.faces, points)
    assert np.array_equal(inside[reach != 0.5], (reach < 0.5)[reach != 0.5])


def test_a_hollow_body_is_hollow():
    outer, inner = trimesh.creation.icosphere(2, 0.8), trimesh.creation.icosphere(2, 0.3)
    vertices = np.concatenate([outer.vertices, inner.vertices])
    faces = np.concatenate([outer.faces, inner.faces[:, ::-1] + len(outer.vertices)])
    points = np.array([[0.1, 0.0, 0.0], [0.5, 0.1, 0.0], [0.9, 0.0, 0.0]])
    assert occupancy_from_mesh(vertices, faces, points).tolist() == [False, True, False]


def test_an_open_mesh_is_told():
    ball = trimesh.creation.icosphere(1, RADIUS)
    with pytest.raises(ValueError, match="not watertight: 3 edges"):
        occupancy_from_mesh(ball.vertices, ball.faces[1:], cube_points(3))
    with pytest.raises(ValueError, match="not watertight"):
        occupancy_from_mesh(ball.vertices, ball.faces[:0], cube_points(3))


def depth_of_ball(center, size=120, focal=150.0):
    """What a camera at ``center`` that looks at the origin sees of the ball, ray by ray, at the pixels' centres."""
    forward = -center / np.linalg.norm(center)
    right = np.cross(forward, [0.3, 0.9, 0.2])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    column, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    ray = np.stack([(column - size / 2) / focal, (row - size / 2) / focal, np.ones_like(row)], axis=2)
    a, b, c = (ray**2).sum(axis=2), ray[..., 2] * -np.linalg.norm(center), center @ center - RADIUS**2
    root = b * b - a * c
    depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0.0))) / a, 0.0)
    return DepthMap(depth, np.array([focal, focal, size / 2, size / 2]), np.c_[rotation, -rotation @ center])


def cameras(n=12):
    """Evenly around, 3 from the middle."""
    height = (np.arange(n) + 0.5) * 2 / n - 1
    turn = np.arange(n) * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - height**2)
    return 3.0 * np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)


def test_labels_of_depth_are_true_and_say_what_the_photos_show():
    thickness, footprint = 0.2, 3.0 / 150.0
    points = cube_points(20_000)
    occupied, known = occupancy_from_depth(points, [depth_of_ball(center) for center in cameras()], thickness)
    sdf = np.linalg.norm(points, axis=1) - RADIUS
    assert not (occupied & ~known).any()
    clear = known & (np.abs(sdf) > footprint)
    assert np.array_equal(occupied[clear], sdf[clear] < 0)
    assert (sdf[occupied] > -thickness - footprint).all()
    skin = (sdf < -footprint) & (sdf > -thickness / 2)
    assert occupied[skin].mean() > 0.99
    before = (sdf > footprint) & (sdf < 0.1)
    assert (known & ~occupied)[before].mean() > 0.95
    assert not known[sdf < -thickness - footprint].any()


def test_a_photo_that_looks_through_a_point_outweighs_one_that_does_not():
    wall = DepthMap(np.full((4, 4), 2.0), np.array([4.0, 4.0, 2.0, 2.0]), np.eye(4)[:3])
    far_wall = wall._replace(depth=np.full((4, 4), 3.0))
    blind = wall._replace(depth=np.zeros((4, 4)))
    points = np.array([[0.0, 0.0, 1.5], [0.0, 0.0, 2.1], [0.0, 0.0, 3.1], [0.0, 0.0, 4.0], [9.0, 0.0, 1.0]])
    occupied, known = occupancy_from_depth(points, [wall, blind], 0.25)
    assert known.tolist() == [True, True, False, False, False]
    assert occupied.tolist() == [False, True, False, False, False]
    occupied, known = occupancy_from_depth(points, [wall, far_wall], 0.25)
    assert known.tolist() == [True, True, True, False, False]
    assert occupied.tolist() == [False, False, True, False, False]


def test_a_small_network_learns_a_ball_and_its_mesh_is_one():
    torch.manual_seed(0)
    ball = trimesh.creation.icosphere(4, RADIUS)
    encoding = FrequencyEncoding(2)
    hidden = [torch.nn.Linear(encoding.width, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()]
    network = torch.nn.Sequential(encoding, *hidden, torch.nn.Linear(64, 1), torch.nn.Flatten(0))
    points = cube_points(20_000)
    occupied = torch.from_numpy(occupancy_from_mesh(ball.vertices, ball.faces, points))
    inputs = torch.from_numpy(points).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(300):
        rows = torch.arange(step * 1024, step * 1024 + 1024) % len(inputs)
        optimizer.zero_grad()
        occupancy_loss(network(inputs[rows]), occupied[rows], torch.ones(1024)).backward()
        optimizer.step()

    fresh = cube_points(20_000, seed=1)
    with torch.no_grad():
        inside = (network(torch.from_numpy(fresh).float()) > 0).numpy()
    truth = np.linalg.norm(fresh, axis=1) < RADIUS
    assert (inside & truth).sum() / (inside | truth).sum() > 0.95

    def outside(index):
        with torch.no_grad():
            return -network(torch.from_numpy(index / 32.0 - 1.0).float()).numpy()

    values, _ = mise(outside, (64, 64, 64), 4)
    keys = EdgeKeys((0, 0, 0), values.shape)
    surface = marching_cubes(values, np.zeros(3, int), keys)
    distance = np.linalg.norm(positions_voxels(surface, keys) / 32.0 - 1.0, axis=1)
    assert len(surface.faces) > 1000
    assert np.abs(distance - RADIUS).max() < 0.04
