"""Samples around a known surface and the shell of voxels that SfM points occupy, against a sphere."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.fields.renderer.neus import NeusRenderer, neus_alpha
from quoin.fields.renderer.renderer import weights_from_alpha
from quoin.fields.sampler.guided import WindowSampler, occupied_interval, occupied_voxels, window_samples
from quoin.fields.sampler.importance import neus_upsample
from quoin.fields.sampler.sampler import SurfaceQuery
from quoin.fields.sampler.sections import sections_between
from quoin.fields.sdf_grids import DenseSdf
from tests.fixtures.rays import ray_segments

RADIUS = 0.5
LOW, SPACING, SHAPE = torch.full((3,), -1.0), torch.tensor(0.1), (20, 20, 20)


def window(surface, found, near=1.0, far=3.0, half=0.1, jitter=0.5):
    rays = ray_segments(torch.zeros(1, 3), torch.eye(3)[:1], torch.tensor([near]), torch.tensor([far]))
    return window_samples(
        rays, torch.tensor([surface]), torch.tensor([found]), torch.tensor(half), torch.full((1, 18), jitter)
    )[0]


def test_samples_fill_the_window_and_the_stretches_before_and_after():
    before, within, after = window(2.0, True).split([5, 8, 5])
    torch.testing.assert_close(before, 1.0 + 0.9 * (torch.arange(5) + 0.5) / 5)
    torch.testing.assert_close(within, 1.9 + 0.2 * (torch.arange(8) + 0.5) / 8)
    torch.testing.assert_close(after, 2.1 + 0.9 * (torch.arange(5) + 0.5) / 5)


def test_without_a_surface_samples_are_even():
    even = 1.0 + 2.0 * (torch.arange(18) + 0.5) / 18
    torch.testing.assert_close(window(2.0, False), even)
    torch.testing.assert_close(window(float("nan"), False), even)


@given(st.floats(1.0, 3.0), st.floats(0.0, 0.99), st.floats(0.01, 3.0))
def test_samples_ascend_between_near_and_far_also_where_the_window_reaches_over(surface, jitter, half):
    distance = window(surface, True, half=half, jitter=jitter)
    assert (distance.diff() >= 0).all()
    assert float(distance[0]) >= 1.0 and float(distance[-1]) <= 3.0
    assert int(((distance - surface).abs() <= half + 1e-5).sum()) >= 8


def sphere_rays(n, seed=0):
    """Rays from 1.5 away at points within 0.9 of the centre; whether and where they first hit the sphere."""
    generator = torch.Generator().manual_seed(seed)
    origins = 1.5 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    aim = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    aim = aim * torch.rand(n, 1, generator=generator) * 0.9
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    along = (origins * directions).sum(dim=1)
    inside = along**2 - 1.5**2 + RADIUS**2
    return origins, directions, inside > 0, -along - inside.clamp(min=0).sqrt(), -along + inside.clamp(min=0).sqrt()


def test_a_surface_known_roughly_is_rendered_where_it_is_with_few_samples():
    origins, directions, meets, hit, _ = sphere_rays(300)
    n = len(hit)
    generator = torch.Generator().manual_seed(1)
    cached = hit + 0.1 * (torch.rand(n, generator=generator) - 0.5)
    near, far = torch.full((n,), 0.5), torch.full((n,), 2.5)
    jitter = torch.rand(n, 18, generator=generator)
    rays = ray_segments(origins, directions, near, far)
    distance = window_samples(rays, cached, meets, torch.tensor(0.1), jitter)

    def sphere(points):
        return points.norm(dim=1) - RADIUS

    edges = neus_upsample(sphere, rays, distance, rounds=2, per_round=8, inv_s=512.0)
    assert edges.shape == (n, 34)
    t, length = sections_between(edges)
    points = rays.points(t)
    cosine = (torch.nn.functional.normalize(points, dim=2) * directions[:, None]).sum(dim=2)
    sdf = sphere(points.reshape(-1, 3)).view(t.shape)
    weight = weights_from_alpha(neus_alpha(sdf, cosine, length, torch.tensor(1000.0), torch.ones(())))
    facing = meets & ((origins + directions * hit[:, None]) * directions).sum(dim=1).lt(-0.4 * RADIUS)
    assert facing.sum() > 100
    depth = (weight * t).sum(dim=1)
    assert float((depth - hit)[facing].abs().max()) < 3e-3


@settings(max_examples=15)
@given(st.floats(-0.9, 0.9))
def test_the_window_around_the_cached_surface_covers_the_true_one(share):
    """A cache that is off by ``share`` of the half width, as far as the network has moved on since."""
    origins, directions, meets, hit, _ = sphere_rays(200)
    cache = DenseSdf.over_box(torch.ones(3), 128)
    half = 5.0 * float(cache.spacing)
    cache.values.copy_((cache.positions().norm(dim=1) - RADIUS + share * half).view_as(cache.values))

    def sphere(points):
        return points.norm(dim=1) - RADIUS

    near, far = torch.full((200,), 0.5), torch.full((200,), 2.5)
    rays, surface = ray_segments(origins, directions, near, far), SurfaceQuery(sphere, NeusRenderer(20.0), cache)
    samples = WindowSampler(8, 5, 2, 8, half_width=5.0)(rays, surface, torch.full((200, 18), 0.5))
    distance = samples.t
    assert distance.shape == samples.deltas.shape == (200, 33)
    head_on = meets & ((origins + directions * hit[:, None]) * directions).sum(dim=1).lt(-0.95 * RADIUS)
    assert head_on.sum() > 20
    off = (distance - hit[:, None])[head_on]
    assert (off.abs() < 2.0 * half).sum(dim=1).min() >= 18  # those of the window, most of those by the network
    for side in (off, -off):
        nearest = torch.where(side > 0, side, torch.inf).amin(dim=1)
        assert float(nearest.max()) < 2.0 * half / 8


def sphere_shell():
    generator = torch.Generator().manual_seed(0)
    points = RADIUS * torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator), dim=1)
    return occupied_voxels(points, LOW, SPACING, SHAPE)


def test_a_point_occupies_its_voxel_and_the_26_around():
    occupied = occupied_voxels(torch.tensor([[0.05, 0.15, -0.95]]), LOW, SPACING, SHAPE)
    assert occupied.shape == SHAPE
    expected = torch.zeros(SHAPE, dtype=torch.bool)
    expected[9:12, 10:13, 0:2] = True  # voxel (10, 11, 0), cut at the border
    assert (occupied == expected).all()


def test_points_just_outside_reach_in_and_others_do_not():
    assert int(occupied_voxels(torch.tensor([[-1.05, 0.05, 0.05]]), LOW, SPACING, SHAPE).sum()) == 9
    assert not occupied_voxels(torch.tensor([[-1.15, 0.05, 0.05], [9.0, 0.0, 0.0]]), LOW, SPACING, SHAPE).any()


def test_the_stretch_of_one_voxel():
    occupied = torch.zeros(SHAPE, dtype=torch.bool)
    occupied[12, 10, 10] = True  # x from 0.2 to 0.3
    origins, directions = torch.tensor([[-2.0, 0.05, 0.05]]), torch.tensor([[1.0, 0.0, 0.0]])
    rays = ray_segments(origins, directions, torch.tensor([0.5]), torch.tensor([4.0]))
    rays = occupied_interval(rays, occupied, LOW, SPACING, n_march=350)
    assert rays.hits.tolist() == [True]
    step = 0.01
    assert 2.2 - 1.5 * step <= float(rays.near) <= 2.2
    assert 2.4 <= float(rays.far) <= 2.4 + 1.5 * step


def test_rays_beside_the_grid_hit_nothing():
    origins, directions = torch.tensor([[-2.0, 0.05, 1.05], [-2.0, -1.05, 0.05]]), torch.tensor([[1.0, 0.0, 0.0]] * 2)
    near, far = torch.zeros(2), torch.full((2,), 4.0)
    rays = ray_segments(origins, directions, near, far)
    cut = occupied_interval(rays, torch.ones(SHAPE, dtype=torch.bool), LOW, SPACING)
    assert cut.hits.tolist() == [False, False]
    assert cut.near.tolist() == near.tolist() and cut.far.tolist() == far.tolist()


@settings(max_examples=20)
@given(st.integers(0, 10000))
def test_the_stretch_holds_the_surface_and_little_else(seed):
    origins, directions, meets, enter, leave = sphere_rays(200, seed)
    near, far = torch.full((200,), 0.3), torch.full((200,), 2.7)
    cut = occupied_interval(ray_segments(origins, directions, near, far), sphere_shell(), LOW, SPACING)
    first, last, hits = cut.near, cut.far, cut.hits
    assert hits[meets].all()
    assert ((first <= enter) & (last >= leave))[meets].all()
    assert ((first >= near) & (last <= far) & (first <= last)).all()
    nearest = torch.linalg.cross(origins, directions).norm(dim=1)  # of the ray to the centre
    assert not hits[nearest > RADIUS + 2 * 3**0.5 * 0.1].any()
    torch.testing.assert_close(first[~hits], near[~hits])
    torch.testing.assert_close(last[~hits], far[~hits])
    head_on = nearest < 0.2
    assert (enter - first)[head_on].max() < 0.1 * 2 * 3**0.5 + 0.05
    assert (last - leave)[head_on].max() < 0.1 * (2 * 3**0.5 + 1) + 0.05
