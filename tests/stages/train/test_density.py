"""A density of its own: what it renders against integrals that are known, and where its samples go."""

import math

import pytest
import torch

from stages.train.renderer.density import Density
from stages.train.renderer.volume import density_alpha, weights
from stages.train.sampler.choose import Hierarchical, Stretch
from stages.train.sampler.stratified import stratified
from stages.train.volume import Volume


def value_of(density, scale):
    """The field's value that gives a density."""
    return -torch.log(torch.expm1(density / scale))


@pytest.mark.parametrize("n", [8, 64])
def test_a_constant_density_is_exact_whatever_the_samples(n):
    """Opacity 1 − exp(−σL), and the mean distance of an exponential cut off at L, in sections that meet."""
    renderer, sigma, length = Density(30.0), 1.7, 2.0
    edges = torch.linspace(0.0, length, n + 1)[None]
    sections = edges.diff(dim=1)
    value = value_of(torch.full((1, n), sigma), 30.0)
    torch.testing.assert_close(renderer.density(value), torch.full((1, n), sigma), rtol=1e-4, atol=0)
    weight = weights(renderer.alpha(value, torch.zeros(1, n), sections, torch.ones(())))
    assert float(weight.sum()) == pytest.approx(1 - math.exp(-sigma * length), abs=1e-5)


def test_a_rising_density_tends_to_its_integral():
    """σ(t) = 3t²: the expected colour of c(t) = t over [0, 2] is ∫ t 3t² exp(−t³) dt."""
    distance, length = stratified(torch.zeros(1), torch.full((1,), 2.0), torch.full((1, 4000), 0.5))
    got = float((weights(density_alpha(3 * distance**2, length)) * distance).sum())
    fine = torch.linspace(0, 2, 200_001, dtype=torch.float64)
    expected = float(torch.trapezoid(fine * 3 * fine**2 * torch.exp(-(fine**3)), fine))
    assert got == pytest.approx(expected, abs=2e-3)


def test_fine_samples_gather_where_the_density_is():
    torch.manual_seed(0)
    n, wall = 32, 1.3

    def value(points):
        return torch.where((points[:, 2] - wall).abs() < 0.05, -5.0, 5.0)

    origins, directions = torch.zeros(n, 3), torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    rays = Stretch(
        origins, directions, torch.zeros(n), torch.full((n,), 2.0), value, Density(30.0), Volume.over(torch.ones(3), 4)
    )
    distance, length = Hierarchical(48, 32)(rays, torch.rand(n, 80))
    assert distance.shape == length.shape == (n, 80)
    assert (distance.diff(dim=1) >= 0).all()
    near = ((distance - wall).abs() < 0.12).float().sum(dim=1)
    assert near.min() > 24  # of 48 even ones some 6 lie there
