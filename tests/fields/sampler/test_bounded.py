"""The opacity's error bound against the opacity itself, finely integrated."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quoin.fields.renderer.volsdf import LaplaceRenderer, laplace_density
from quoin.fields.sampler.bounded import ErrorBoundedSampler, bounded_opacity, opacity_error_bound
from quoin.fields.sampler.sampler import SurfaceQuery
from quoin.fields.sdf_grids import DenseSdf
from tests.fixtures.rays import ray_segments

RADIUS = 0.5


def sphere(points):
    return points.norm(dim=1) - RADIUS


def plane(points):
    return points @ torch.tensor([0.6, 0.0, 0.8], dtype=points.dtype) + 0.1


def two_spheres(points):
    """Apart, so that the smaller of both is the true distance also inside."""
    away = torch.tensor([0.0, 0.7, 0.0], dtype=points.dtype)
    return torch.minimum((points - away).norm(dim=1) - 0.3, (points + away).norm(dim=1) - 0.2)


def rays(n, seed=0, dtype=torch.float64):
    """From 1.5 away through the ball of radius 0.8: some hit a sphere, some graze it, some miss."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=dtype), dim=1) * 1.5
    aim = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=dtype), dim=1)
    aim = aim * torch.rand(n, 1, generator=generator, dtype=dtype) * 0.8
    return origins, torch.nn.functional.normalize(aim - origins, dim=1)


def values(sdf, origins, directions, distance):
    points = origins[:, None] + directions[:, None] * distance[..., None]
    return sdf(points.reshape(-1, 3)).view(distance.shape)


def opacity_error(sdf, origins, directions, distance, beta, n_fine):
    """Largest |O − Ô| in each section: both opacities at many places in each, O integrated by the midpoint rule."""
    length = distance.diff(dim=1)
    step = (torch.arange(n_fine, dtype=distance.dtype) + 0.5) / n_fine
    fine = (distance[:, :-1, None] + length[..., None] * step).flatten(1)
    width = (length / n_fine).repeat_interleave(n_fine, dim=1)
    true = (laplace_density(values(sdf, origins, directions, fine), beta) * width).cumsum(dim=1)
    first = laplace_density(values(sdf, origins, directions, distance), beta)[:, :-1]
    estimate = (first.repeat_interleave(n_fine, dim=1) * width).cumsum(dim=1)
    return (torch.exp(-true) - torch.exp(-estimate)).abs().view(*length.shape, n_fine).amax(dim=2)


@given(
    st.sampled_from([sphere, plane, two_spheres]),
    st.floats(math.log(0.01), math.log(0.5)).map(math.exp),
    st.integers(2, 40),
    st.integers(0, 10000),
)
def test_the_bound_bounds_the_error_of_the_opacity(sdf, beta, n_samples, seed):
    origins, directions = rays(8, seed)
    generator = torch.Generator().manual_seed(seed)
    distance = (torch.rand(8, n_samples, generator=generator, dtype=torch.float64) * 3.0).sort(dim=1).values
    beta = torch.tensor(beta, dtype=torch.float64)
    bound = opacity_error_bound(distance, values(sdf, origins, directions, distance), beta)
    error = opacity_error(sdf, origins, directions, distance, beta, n_fine=300)
    assert (error <= bound + 1e-4).all()


@pytest.mark.parametrize(
    ("first", "second", "clearance"),
    [
        (1.0, 1.0, math.sqrt(0.9375)),  # the balls meet in a circle above the middle
        (0.7, 0.4, 0.4),  # the smaller ball's end is nearest
        (0.4, 0.7, 0.4),
        (-0.7, -0.4, 0.4),
        (0.2, 0.2, 0.0),  # the balls do not meet
        (0.3, -0.2, 0.0),  # the surface lies between
        (0.4, -0.4, 0.0),  # also where the SDF is steeper than a distance
    ],
)
def test_the_bound_of_one_section_is_the_formula(first, second, clearance):
    beta = 0.3
    bound = opacity_error_bound(torch.tensor([[1.0, 1.5]]), torch.tensor([[first, second]]), torch.tensor(beta))
    expected = math.expm1(0.5**2 * math.exp(-clearance / beta) / (4 * beta**2))
    assert float(bound) == pytest.approx(expected, rel=1e-5)


def test_the_bound_shrinks_with_the_sections():
    origins, directions = rays(32)
    beta = torch.tensor(0.05, dtype=torch.float64)
    largest = []
    for n_samples in (257, 513, 1025):
        distance = torch.linspace(0.0, 3.0, n_samples, dtype=torch.float64).expand(32, -1)
        bound = opacity_error_bound(distance, values(sphere, origins, directions, distance), beta)
        largest.append(float(bound.max()))
    assert largest[0] < 0.2
    assert largest[1] == pytest.approx(largest[0] / 2, rel=0.15)
    assert largest[2] == pytest.approx(largest[1] / 2, rel=0.15)


@pytest.mark.parametrize("sdf", [sphere, plane, two_spheres])
@pytest.mark.parametrize("beta", [0.1, 0.02, 0.005])
def test_opacity_is_right_to_epsilon_with_the_beta_found(sdf, beta):
    origins, directions = rays(30)
    beta = torch.tensor(beta, dtype=torch.float64)
    near, far = torch.zeros(30, dtype=torch.float64), torch.full((30,), 3.0, dtype=torch.float64)
    distance, sdf_there, enough = bounded_opacity(sdf, ray_segments(origins, directions, near, far), beta)
    assert distance.shape == (30, 128 * 5)
    assert (distance.diff(dim=1) >= 0).all()
    assert float(distance.min()) == 0.0 and float(distance.max()) == 3.0
    torch.testing.assert_close(sdf_there, values(sdf, origins, directions, distance))
    assert (enough >= beta).all()
    assert float(opacity_error_bound(distance, sdf_there, enough).max()) <= 0.1
    assert float(opacity_error(sdf, origins, directions, distance, enough[:, None], n_fine=8).max()) <= 0.1
    assert float((enough == beta).double().mean()) > 0.9


def test_rounds_bring_rays_to_the_wanted_beta():
    origins, directions = rays(100, dtype=torch.float32)
    beta, near, far = torch.tensor(0.002), torch.zeros(100), torch.full((100,), 3.0)
    segments = ray_segments(origins, directions, near, far)
    found = [bounded_opacity(sphere, segments, beta, rounds=r)[2] for r in (1, 2, 3, 5)]
    for before, after in itertools.pairwise(found):
        assert float((after - beta).mean()) < 0.75 * float((before - beta).mean())
    assert float((found[0] == beta).float().mean()) < 0.6
    assert float((found[-1] == beta).float().mean()) > 0.9


def test_the_beta_found_is_the_smallest_that_suffices():
    origins, directions = rays(30)
    beta = torch.tensor(0.001, dtype=torch.float64)
    near, far = torch.zeros(30, dtype=torch.float64), torch.full((30,), 3.0, dtype=torch.float64)
    segments = ray_segments(origins, directions, near, far)
    distance, sdf_there, enough = bounded_opacity(sphere, segments, beta, rounds=1)
    wider = enough > beta
    assert wider.any()
    slightly_smaller = opacity_error_bound(distance, sdf_there, enough * 0.98).amax(dim=1)
    assert (slightly_smaller[wider] > 0.1).all()


def drawn(rays, beta, jitter):
    """Samples of the sphere."""
    sampler = ErrorBoundedSampler(jitter.shape[1], n_initial=128, rounds=5, epsilon=0.1)
    return sampler(rays, SurfaceQuery(sphere, LaplaceRenderer(beta), DenseSdf.over_box(torch.ones(3), 4)), jitter)


def test_samples_follow_the_opacity():
    n = 200
    origins, directions = rays(n, dtype=torch.float32)
    along = (origins * directions).sum(dim=1)
    inside = along**2 - (origins**2).sum(dim=1) + RADIUS**2
    hits, misses = inside > 0.02, inside < -0.1
    assert hits.sum() > 50 and misses.sum() > 20
    hit = -along - inside.clamp(min=0).sqrt()
    jitter = torch.rand(n, 64, generator=torch.Generator().manual_seed(0))
    near, far = torch.zeros(n), torch.full((n,), 3.0)
    samples = drawn(ray_segments(origins, directions, near, far), 0.005, jitter)
    distance = samples.t
    assert (distance.diff(dim=1) >= 0).all()
    assert (samples.deltas >= 0).all()
    depth_inside = -values(sphere, origins, directions, distance)[hits]
    off = (distance - hit[:, None])[hits].abs()
    assert float((off < 8 * 0.005 / 0.25).float().mean()) > 0.95  # few β deep, however flat the ray meets the sphere
    assert float(off.median()) < 0.02
    assert float((depth_inside.abs() < 0.05).float().mean()) > 0.95
    torch.testing.assert_close(distance[misses], 3.0 * (torch.arange(64) + jitter[misses]) / 64, atol=0.02, rtol=0)


def test_rays_without_extent_stay_finite():
    origins, directions = rays(4, dtype=torch.float32)
    at = torch.tensor([0.0, 1.0, 1.2, 2.0])
    samples = drawn(ray_segments(origins, directions, at, at), 0.01, torch.rand(4, 8))
    torch.testing.assert_close(samples.t, at[:, None].expand(4, 8))
    assert (samples.deltas == 0).all()
