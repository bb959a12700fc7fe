"""Renderer, sampler and patches against what geometry says they must give."""

import math

import numpy as np
import pytest
import torch

from quoin.fields.rays import background_samples, intersect_ray_box
from quoin.fields.renderer.neus import NeusRenderer, neus_alpha
from quoin.fields.renderer.renderer import alpha_from_density, weights_from_alpha
from quoin.fields.sampler.guided import GuidedSampler
from quoin.fields.sampler.sampler import SurfaceQuery
from quoin.fields.sampler.sections import first_surface
from quoin.fields.sdf_grids import DenseSdf
from quoin.pipeline.geometry.cameras import look_at
from quoin.stages.train.data.photo_set import PhotoSet
from quoin.stages.train.photoconsistency import best_views_loss, extract_patches, ncc, warp_patches
from tests.fixtures.rays import ray_segments


def wall_at(depth, n_samples=2000, far=2.0, cosine=-1.0):
    """Samples along a ray that meets a wall at ``depth`` under ``cosine``."""
    t = (torch.arange(n_samples, dtype=torch.float64) + 0.5) / n_samples * far
    sdf = (t - depth) * cosine
    return (
        t[None],
        sdf[None],
        torch.full((1, n_samples), cosine, dtype=torch.float64),
        torch.full_like(t[None], far / n_samples),
    )


@pytest.mark.parametrize("cosine", [-1.0, -0.5, -0.2])
def test_neus_weight_peaks_on_the_surface_and_the_naive_density_before_it(cosine):
    t, sdf, cos, length = wall_at(1.2, cosine=cosine)
    inv_s = torch.tensor(40.0, dtype=torch.float64)
    weight = weights_from_alpha(neus_alpha(sdf, cos, length, inv_s, torch.ones((), dtype=torch.float64)))
    assert abs(float(t[0, weight.argmax()]) - 1.2) < 0.004
    assert float(weight.sum()) == pytest.approx(1.0, abs=0.01)
    logistic = torch.sigmoid(sdf * inv_s) * torch.sigmoid(-sdf * inv_s) * inv_s  # s-density itself as density
    naive = weights_from_alpha(alpha_from_density(logistic, length))
    assert float(t[0, naive.argmax()]) < 1.2 - 0.004


def peak_of(weight, t):
    """Where a curve is highest, between samples too."""
    i = int(weight.argmax())
    before, top, after = weight[i - 1 : i + 2].log().tolist()
    return float(t[i]) + 0.5 * (before - after) / (before - 2 * top + after) * float(t[1] - t[0])


def test_on_a_curved_surface_neus_is_off_to_second_order_and_the_naive_density_to_first():
    """Past a ball of radius 0.5 at 0.4: twice as sharp, four times as near with NeuS, twice without."""
    hit = -0.3
    t = hit + torch.linspace(-0.08, 0.08, 8001, dtype=torch.float64)
    sdf, length = (t * t + 0.4**2).sqrt() - 0.5, torch.full((1, 8001), 0.16 / 8000, dtype=torch.float64)
    cosine, one = t / (sdf + 0.5), torch.ones((), dtype=torch.float64)
    off = {"neus": [], "naive": []}
    for inv_s in (150.0, 300.0, 600.0):
        ours = weights_from_alpha(neus_alpha(sdf[None], cosine[None], length, one * inv_s, one))
        logistic = torch.sigmoid(sdf * inv_s) * torch.sigmoid(-sdf * inv_s) * inv_s
        naive = weights_from_alpha(alpha_from_density(logistic[None], length))
        off["neus"].append(abs(peak_of(ours[0], t) - hit))
        off["naive"].append(abs(peak_of(naive[0], t) - hit))
    for i in (0, 1):
        assert 3.4 < off["neus"][i] / off["neus"][i + 1] < 4.6
        assert 1.7 < off["naive"][i] / off["naive"][i + 1] < 2.3
        assert off["neus"][i] < 0.2 * off["naive"][i]


def test_surfaces_seen_from_behind_do_not_absorb():
    _, sdf, cos, length = wall_at(1.0, cosine=1.0)
    one, behind = torch.ones((), dtype=torch.float64), sdf[0] > 0
    assert float(weights_from_alpha(neus_alpha(sdf, cos, length, one * 100, one)[:, behind]).sum()) < 0.02


def test_constant_density_integrates_to_beer_lambert():
    length = torch.full((1, 64), 0.05)
    weight = weights_from_alpha(alpha_from_density(torch.full((1, 64), 0.7), length))
    assert float(weight.sum()) == pytest.approx(1 - math.exp(-0.7 * 64 * 0.05), abs=1e-4)


def test_box_interval():
    half_extent = torch.tensor([1.0, 0.5, 0.25])
    origins = torch.tensor([[-3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-3.0, 2.0, 0.0]])
    rays = intersect_ray_box(origins, torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3), -half_extent, half_extent)
    assert rays.hits.tolist() == [True, True, False]
    assert rays.near[:2].tolist() == pytest.approx([2.0, 0.0])
    assert rays.far[:2].tolist() == pytest.approx([4.0, 1.0])


def ball_volume(resolution=48, radius=0.5):
    volume = DenseSdf.over_box(torch.ones(3), resolution)
    volume.values.copy_((volume.positions().norm(dim=1) - radius).view_as(volume.values))
    return volume


def guides(volume, inv_s):
    return SurfaceQuery(volume, NeusRenderer(inv_s), volume)


def test_guided_samples_gather_at_the_surface_in_order():
    volume = ball_volume()
    torch.manual_seed(0)
    n = 64
    origins = torch.tensor([0.0, 0.0, -3.0]).expand(n, 3) + torch.rand(n, 3) * 0.4 - 0.2
    directions = torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    rays = intersect_ray_box(origins, directions, -torch.ones(3), torch.ones(3))
    samples = GuidedSampler(16)(rays, guides(volume, 200.0), torch.rand(n, 16))
    t = samples.t
    assert (t[:, 1:] >= t[:, :-1]).all()
    assert (samples.deltas >= 0).all()
    assert ((t >= rays.near[:, None] - 1e-5) & (t <= rays.far[:, None] + 1e-5)).all()
    points = samples.points()
    near = (points.norm(dim=2) - 0.5).abs() < 0.08
    assert near.float().mean() > 0.7
    first = torch.tensor(3.0) + origins[:, 2] * -1 - 3.0 - torch.sqrt(0.25 - origins[:, 0] ** 2 - origins[:, 1] ** 2)
    assert ((t - first[:, None]).abs().min(dim=1).values < 0.03).all()


def test_rays_through_empty_space_are_sampled_evenly():
    volume = DenseSdf.over_box(torch.ones(3), 16, fill=1.0)
    origins, directions = torch.tensor([[0.0, 0.0, -2.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    rays = ray_segments(origins, directions, torch.tensor([1.0]), torch.tensor([3.0]))
    t = GuidedSampler(16)(rays, guides(volume, 50.0), torch.full((1, 16), 0.5)).t
    torch.testing.assert_close(t[0], 1.0 + (torch.arange(16) + 0.5) / 8, atol=0.03, rtol=0)


def test_outside_samples_start_behind_the_block_and_reach_far():
    t = background_samples(torch.tensor([2.0]), torch.full((1, 6), 0.5))
    assert float(t[0, 0]) >= 2.0
    assert (t[0, 1:] > t[0, :-1]).all()
    assert float(t[0, -1]) > 4.0


def test_first_crossing_finds_the_first_entry_and_its_normal():
    distance = torch.linspace(0, 3, 16)[None].repeat(2, 1)
    sdf = torch.stack([1.0 - distance[0], torch.full((16,), 0.5)])
    gradient = torch.tensor([0.0, 0.0, -2.0]).expand(2, 16, 3)
    t, normal, found = first_surface(sdf, distance, gradient)
    assert found.tolist() == [True, False]
    assert float(t[0]) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(normal[0], torch.tensor([0.0, 0.0, -1.0]))


def test_crossing_moves_with_the_sdf():
    distance = torch.linspace(0, 3, 16)[None]
    shift = torch.zeros((), requires_grad=True)
    t, _, _ = first_surface(1.3 - distance + shift, distance, torch.ones(1, 16, 3))
    t.sum().backward()
    assert float(shift.grad) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("level", [0, 1])
def test_patches_are_seen_where_the_plane_projects(level):
    """Against the projection of the plane's points, one by one, into a photo whose gray is its column."""
    rng = np.random.default_rng(0)
    poses = np.stack(
        [look_at(np.array([0.0, -3.0, 0.2]), np.zeros(3)), look_at(np.array([0.9, -2.8, 0.4]), np.zeros(3))]
    )
    intrinsics = np.array([[110.0, 110.0, 64.0, 48.0]] * 2)
    noise = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
    ramp = np.repeat(np.tile(np.arange(128, dtype=np.uint8), (96, 1))[:, :, None], 3, axis=2)
    photos = PhotoSet(
        [noise, ramp],
        [np.full((96, 128), 255, np.uint8)] * 2,
        poses,
        intrinsics,
        [np.ones((6, 8))] * 2,
        np.array([[1], [0]]),
        held_out_share=0.0,
        seed=0,
    )
    normal = torch.nn.functional.normalize(torch.tensor([[0.2, -1.0, 0.1]]), dim=1)
    height = -torch.tensor([2.9])
    pixels = torch.tensor([[0, 70, 40]])
    patches = extract_patches(photos, pixels, torch.ones(1, 1), torch.tensor(level), 1)
    values, inside = warp_patches(patches, photos.gray, height, normal)
    assert inside.all() and patches.usable.all()

    xy = (patches.pixel[0, :2, None] + patches.offset).T
    origin, directions = photos.rays(torch.zeros(len(xy), dtype=torch.long), xy)
    points = origin + directions * (height / (directions @ normal[0]))[:, None]
    camera = points.double().numpy() @ poses[1][:, :3].T + poses[1][:, 3]
    column = camera[:, 0] / camera[:, 2] * 110.0 + 64.0
    np.testing.assert_allclose(values[0, 0].numpy() * 255, column - 0.5, atol=0.02 if level == 0 else 0.6)
    assert not warp_patches(patches, photos.gray, height, -normal)[1].any()  # from behind
    assert not warp_patches(patches, photos.gray, -height, normal)[1].any()  # behind the photo


def test_ncc_ignores_gain_and_offset_and_knows_noise():
    torch.manual_seed(0)
    a = torch.rand(5, 121)
    assert (ncc(a, 0.4 * a + 0.2) > 0.999).all()
    assert (ncc(a, 1.0 - a) < -0.999).all()
    assert (ncc(a, torch.rand(5, 121)).abs() < 0.4).all()


def test_occluded_views_do_not_count():
    cost = torch.tensor([[0.1, 0.2, 0.9, 1.5], [0.3, 0.95, 1.0, 1.2]])
    valid = torch.ones_like(cost, dtype=torch.bool)
    loss, used = best_views_loss(cost, valid, n_best=2, reject=0.7)
    assert float(loss) == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert float(used) == pytest.approx(0.75)
    loss, used = best_views_loss(cost, ~valid, n_best=2, reject=0.7)
    assert float(loss) == 0.0
    assert float(used) == 0.0
