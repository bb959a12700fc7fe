"""Importance sampling against the densities it draws from, and NeuS up-sampling against a sphere."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quoin.fields.renderer.neus import neus_alpha
from quoin.fields.renderer.renderer import weights_from_alpha
from quoin.fields.sampler.importance import merge_samples, merge_sorted, neus_upsample, sample_pdf
from quoin.fields.sampler.sections import sections_between, stratified_samples
from tests.fixtures.rays import ray_segments

RADIUS = 0.5


def test_samples_are_the_inverse_of_the_cumulative_distribution():
    edges, weight = torch.tensor([[0.0, 1.0, 3.0, 4.0]]), torch.tensor([[0.25, 0.5, 0.25]])
    distance = sample_pdf(edges, weight, torch.zeros(1, 8))  # quantiles 0, 1/8, …, 7/8
    torch.testing.assert_close(distance, torch.tensor([[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]]), atol=1e-3, rtol=0)


@given(st.integers(0, 1000), st.integers(2, 12))
def test_each_section_gets_samples_by_its_weight(seed, n_sections):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.rand(4, n_sections + 1, generator=generator).cumsum(dim=1)
    weight = torch.rand(4, n_sections, generator=generator) * (torch.rand(4, n_sections, generator=generator) > 0.3)
    weight[:, 0] += 0.1
    n_samples = 2000
    distance = sample_pdf(edges, weight, torch.rand(4, n_samples, generator=generator))
    assert (distance.diff(dim=1) >= 0).all()
    assert ((distance >= edges[:, :1]) & (distance <= edges[:, -1:])).all()
    section = torch.searchsorted(edges, distance, right=True) - 1
    share = torch.stack([(section == i).float().mean(dim=1) for i in range(n_sections)], dim=1)
    # strata cut by the border between two sections may go to either
    torch.testing.assert_close(share, weight / weight.sum(dim=1, keepdim=True), atol=3 / n_samples, rtol=0)


def test_samples_are_even_inside_a_section():
    jitter = torch.rand(1, 20000, generator=torch.Generator().manual_seed(0))
    distance = sample_pdf(torch.tensor([[0.0, 1.0, 5.0, 6.0]]), torch.tensor([[0.0, 1.0, 0.0]]), jitter)
    assert float(distance.mean()) == pytest.approx(3.0, abs=0.01)
    assert float(distance.var()) == pytest.approx(16 / 12, abs=0.01)


def test_rays_without_weight_are_sampled_evenly_and_empty_ones_stay_finite():
    edges = torch.tensor([[0.0, 0.1, 0.2, 4.0], [1.0, 1.0, 1.0, 1.0]])
    distance = sample_pdf(edges, torch.zeros(2, 3), torch.full((2, 4), 0.5))
    torch.testing.assert_close(distance, torch.tensor([[0.5, 1.5, 2.5, 3.5], [1.0, 1.0, 1.0, 1.0]]))


def test_merged_distances_ascend_and_values_stay_with_them():
    a, b = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.5, 4.0]])
    assert merge_sorted(a, b).tolist() == [[0.5, 1.0, 2.0, 3.0, 4.0]]
    distance, value = merge_samples(a, -a, b, -b)
    assert distance.tolist() == [[0.5, 1.0, 2.0, 3.0, 4.0]]
    torch.testing.assert_close(value, -distance)


def sphere(points):
    return points.norm(dim=1) - RADIUS


def rays_at_the_sphere(n, within):
    """Rays from 1.5 away towards points within a share of the radius, and the distance of their first hit."""
    generator = torch.Generator().manual_seed(0)
    origins = 1.5 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    aim = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1) * RADIUS * within
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    along = (origins * directions).sum(dim=1)
    hit = -along - (along**2 - (origins**2).sum(dim=1) + RADIUS**2).sqrt()
    rays = ray_segments(origins, directions, torch.full((n,), 0.3), torch.full((n,), 2.7))
    even, _ = stratified_samples(rays.near, rays.far, torch.rand(n, 64, generator=generator))
    return rays, hit, even


def test_neus_upsampling_gathers_at_the_first_crossing():
    rays, hit, even = rays_at_the_sphere(200, within=0.8)
    off = [(even - hit[:, None]).abs()]
    for rounds in (1, 2, 3, 4):
        distance = neus_upsample(sphere, rays, even, rounds=rounds)
        assert distance.shape == (200, 64 + 16 * rounds)
        assert (distance.diff(dim=1) >= 0).all()
        off.append((distance - hit[:, None]).abs())
    median = [float(o.median()) for o in off]
    assert all(after < 0.8 * before for before, after in itertools.pairwise(median))
    nearest = off[-1].sort(dim=1).values
    assert float(nearest[:, :32].max()) < 0.02  # the last two rounds, a hundredth of the way
    assert float(nearest[:, :64].max()) < 0.15  # all four


def test_depth_rendered_from_upsampled_sections_is_the_analytic_depth():
    rays, hit, even = rays_at_the_sphere(200, within=0.95)

    def depth_error(edges):
        distance, length = sections_between(edges)
        points = rays.points(distance)
        cosine = (torch.nn.functional.normalize(points, dim=2) * rays.directions[:, None]).sum(dim=2)
        sdf = sphere(points.reshape(-1, 3)).view(distance.shape)
        weight = weights_from_alpha(neus_alpha(sdf, cosine, length, torch.tensor(1000.0), torch.ones(())))
        return ((weight * distance).sum(dim=1) - hit).abs()

    assert float(depth_error(even).mean()) > 5e-3
    assert float(depth_error(neus_upsample(sphere, rays, even)).max()) < 1e-3


def test_only_the_side_that_faces_the_ray_attracts_samples():
    """A slab between two parallel planes: seen through, its far side is a crossing too, but not one to stop at."""
    origins, directions = torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    rays = ray_segments(origins, directions, torch.zeros(1), torch.full((1,), 2.0))
    even, _ = stratified_samples(rays.near, rays.far, torch.full((1, 64), 0.5))
    distance = neus_upsample(lambda points: points[:, 2].abs() - 0.3, rays, even)
    assert int(((distance - 0.7).abs() < 0.1).sum()) > 60
    assert int(((distance - 1.3).abs() < 0.1).sum()) == int(((even - 1.3).abs() < 0.1).sum())


def test_a_plate_that_no_sample_hits_is_found_by_the_slope_before_it():
    origins, directions = torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    rays = ray_segments(origins, directions, torch.zeros(1), torch.full((1,), 2.0))
    even, _ = stratified_samples(rays.near, rays.far, torch.full((1, 16), 0.5))
    distance = neus_upsample(lambda points: points[:, 2].abs() - 0.01, rays, even)
    assert not ((even - 1.0).abs() < 0.01).any()
    assert int(((distance - 1.0).abs() < 0.01).sum()) > 3


def test_upsampling_asks_for_what_it_says_and_passes_no_gradient():
    asked = []
    radius = torch.tensor(RADIUS, requires_grad=True)

    def counting(points):
        asked.append(len(points))
        return points.norm(dim=1) - radius

    rays, _, even = rays_at_the_sphere(3, within=0.5)
    distance = neus_upsample(counting, rays, even, rounds=3, per_round=8)
    assert asked == [3 * 64, 3 * 8, 3 * 8]
    assert distance.shape == (3, 64 + 3 * 8)
    assert not distance.requires_grad
