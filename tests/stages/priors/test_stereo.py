"""Stereo on an analytic scene: slanted and curved surfaces recovered, wrong depths not believed."""

import numpy as np
import pytest
import torch

from pipeline.cameras import look_at, pixel_grid, rays_world
from stages.priors.agree import agreement
from stages.priors.stereo import (
    FAIL,
    View,
    best_of,
    box_mean,
    depth_map,
    plane_family,
    plane_normals,
    propagated,
    ray_grid,
    smooth,
    splat,
)
from tests import ball_scene

WIDTH, HEIGHT = 160, 120


def picture(angle, gain=1.0):
    """A view of the ball scene and its true depth map (0 where nothing is hit)."""
    pose = look_at(np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.6]), np.array([0, 0, 0.4]))
    intrinsics = np.array([150.0, 150.0, WIDTH / 2, HEIGHT / 2])
    origin, directions = rays_world(pose, intrinsics, pixel_grid(WIDTH, HEIGHT))
    distance = ball_scene.cast(origin, directions)
    hit = np.isfinite(distance)
    points = origin + directions * np.where(hit, distance, 0)[:, None]
    gray = np.where(hit, ball_scene.texture(points).mean(axis=1), 0.7) * gain
    depth = np.where(hit, distance * (directions @ pose[2, :3]), 0)
    tensors = (gray.reshape(HEIGHT, WIDTH), intrinsics, pose)
    return View(*(torch.tensor(t, dtype=torch.float32) for t in tensors)), torch.tensor(depth.reshape(HEIGHT, WIDTH))


def half(view):
    gray = view.gray.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(dim=(1, 3))
    return View(gray, view.intrinsics / 2, view.cam_from_world)


@pytest.fixture(scope="module")
def swept():
    pictures = [picture(a, g) for a, g in ((0.0, 1.0), (0.22, 0.8), (-0.22, 0.6), (0.4, 1.0), (-0.4, 0.9))]
    maps = []
    for i in range(3):
        reference = pictures[i][0]
        sources = [p[0] for k, p in enumerate(pictures) if k != i]
        levels = [(half(reference), [half(s) for s in sources]), (reference, sources)]
        maps.append(depth_map(levels, (1 / 5.5, 1 / 1.4), torch.tensor([0.0, 0, 1]), 7))
    return pictures, maps


def test_depth_of_a_ball_on_a_floor(swept):
    pictures, maps = swept
    depth, cost = maps[0]
    true = pictures[0][1]
    known = (true > 0) & (cost < 0.4)
    error = ((depth - true).abs() / true)[known]
    assert known.float().mean() > 0.35
    assert float(error.median()) < 0.004
    assert float((error < 0.02).float().mean()) > 0.9


def test_agreement_believes_right_depths_and_drops_wrong_ones(swept):
    pictures, _ = swept
    true = pictures[0][1].float()
    sources, depths = [pictures[1][0], pictures[2][0]], [pictures[1][1].float(), pictures[2][1].float()]
    count, mean = agreement(pictures[0][0], true, sources, depths)
    assert (count >= 1)[true > 0].float().mean() > 0.7
    believed = count >= 1
    assert float(((mean - true).abs() / true.clamp(min=0.1))[believed].median()) < 0.01
    wrong, _ = agreement(pictures[0][0], true * 1.1, sources, depths)
    assert (wrong >= 1)[true > 0].float().mean() < 0.05


def test_level_planes_are_seen_at_their_depth():
    view, _ = picture(0.3)
    floor = plane_normals(view, torch.tensor([0.0, 0, 1]))[-1]
    planes = plane_family(view, floor, (1 / 5.5, 1 / 1.4), 0.01, limit=40)
    origin, directions = rays_world(
        view.cam_from_world.double().numpy(), view.intrinsics.double().numpy(), pixel_grid(WIDTH, HEIGHT)
    )
    depth = -origin[2] / directions[:, 2] * (directions @ view.cam_from_world[2, :3].double().numpy())
    ratio = planes * torch.tensor(depth, dtype=torch.float32).view(HEIGHT, WIDTH)
    for plane in ratio:  # each plane is the floor, moved: its inverse depth is the floor's, scaled
        assert float(plane.std() / plane.mean()) < 1e-3
    assert float(planes.min()) < 1 / 5.5 + 0.02
    assert float(planes.max()) > 1 / 1.4 - 0.02


def test_what_neighbours_believe_mends_a_wrong_map(swept):
    pictures, _ = swept
    reference, true = pictures[0][0], pictures[0][1].float()
    own, cost = torch.full_like(true, 4.9), torch.full_like(true, FAIL)
    view, depth = pictures[1][0], pictures[1][1].float()
    camera = (ray_grid(view) * depth.reshape(-1))[:, depth.reshape(-1) > 0]
    points = (camera.T - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]
    better, better_cost = propagated(reference, [p[0] for p in pictures[1:]], points, own, cost, (1 / 5.5, 1 / 1.4), 7)
    good = (better_cost < 0.4) & (true > 0)
    assert good.float().mean() > 0.35
    assert float(((better - true).abs() / true)[good].median()) < 0.005


def test_splatting_keeps_the_nearest():
    view = View(torch.zeros(4, 6), torch.tensor([2.0, 2.0, 3.0, 2.0]), torch.eye(4)[:3])
    seen = splat(view, torch.tensor([[0.1, 0.1, 2.0], [0.1, 0.1, 1.5], [0.0, 0.0, -1.0], [9.0, 0.0, 1.0]]))
    assert float(seen[2, 3]) == 1.5
    assert int((seen > 0).sum()) == 1


def test_parabola_finds_the_minimum_between_planes():
    planes = torch.linspace(1, 2, 11)[:, None, None].expand(-1, 2, 2)
    best, cost = best_of((planes - 1.4321) ** 2, planes)
    torch.testing.assert_close(best, torch.full((2, 2), 1.4321), atol=1e-4, rtol=0)
    assert float(cost.max()) < 0.01


def test_smoothing_fills_holes_from_their_rim_and_removes_spikes():
    inverse, cost = torch.full((20, 20), 0.5), torch.zeros(20, 20)
    inverse[10, 10] = 9.0
    inverse[4:7, 4:7], cost[4:7, 4:7] = 3.0, 1.0
    torch.testing.assert_close(smooth(inverse, cost, 0.4, rounds=5), torch.full((20, 20), 0.5))


def test_box_mean_is_a_mean():
    image = torch.rand(1, 12, 15)
    assert float(box_mean(image, 5)[0, 6, 7]) == pytest.approx(float(image[0, 4:9, 5:10].mean()), abs=1e-6)
