"""Laplace density against its formula and its limits."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import laplace

from quoin.fields.renderer.renderer import alpha_from_density, weights_from_alpha
from quoin.fields.renderer.volsdf import MIN_BETA, LaplaceRenderer, laplace_density


@given(st.floats(-2.0, 2.0), st.floats(1e-3, 1.0))
def test_density_is_the_laplace_distribution_of_the_depth_inside(sdf, beta):
    density = laplace_density(torch.tensor(sdf, dtype=torch.float64), torch.tensor(beta, dtype=torch.float64))
    assert float(density) == pytest.approx(laplace.cdf(-sdf, scale=beta) / beta, rel=1e-9, abs=1e-12)


def test_density_tends_to_a_solid_of_one_over_beta():
    sdf = torch.tensor([[1e4, 0.01, 0.0, -0.01, -1e4]])
    density = laplace_density(sdf, torch.tensor(1e-4))
    torch.testing.assert_close(density, torch.tensor([[0.0, 0.0, 5e3, 1e4, 1e4]]))


def test_gradients_are_finite_and_right_far_from_the_surface():
    sdf = torch.tensor([1e4, 0.02, -0.02, -1e4], requires_grad=True)
    beta = torch.tensor(0.01, requires_grad=True)
    laplace_density(sdf, beta).sum().backward()
    slope = -0.5 * math.exp(-2) / 0.01**2
    torch.testing.assert_close(sdf.grad, torch.tensor([0.0, slope, slope, 0.0]))
    assert math.isfinite(float(beta.grad))


def test_every_ray_may_have_its_own_beta():
    sdf, beta = torch.tensor([[0.1, -0.2], [0.1, -0.2]]), torch.tensor([[0.1], [0.5]])
    both = laplace_density(sdf, beta)
    for row in (0, 1):
        torch.testing.assert_close(both[row], laplace_density(sdf[row], beta[row, 0]))


@pytest.mark.parametrize("beta", [0.1, 0.03, 0.01])
def test_a_wall_is_seen_within_a_few_beta_of_where_it_is(beta):
    distance = torch.linspace(0.0, 2.0, 4001)[None]
    length = torch.full_like(distance, 2.0 / 4000)
    weight = weights_from_alpha(alpha_from_density(laplace_density(1.0 - distance, torch.tensor(beta)), length))
    depth = float((weight * distance).sum() / weight.sum())
    assert abs(depth - 1.0) < 1.5 * beta
    assert float(weight[(distance - 1.0).abs() < 6.0 * beta].sum()) > 0.99


def test_beta_starts_as_asked_shrinks_as_a_wall_is_learnt_and_stays_above_its_least():
    """Its schedule is learnt: the sharper the true wall, the smaller it gets, with no step of a hand-made one."""
    renderer = LaplaceRenderer(0.1)
    assert float(renderer.beta().detach()) == pytest.approx(0.1)
    assert float(renderer.inv_s().detach()) == pytest.approx(10.0)
    distance = torch.linspace(0.0, 2.0, 401)[None]
    length, truth = torch.full_like(distance, 2.0 / 400), (distance > 1.0).float()
    optimizer, betas = torch.optim.Adam(renderer.parameters(), lr=2e-3), []
    for _ in range(60):
        alpha = renderer.alpha(1.0 - distance, -torch.ones_like(distance), length, torch.ones(()))
        through = weights_from_alpha(alpha).cumsum(dim=1)
        optimizer.zero_grad()
        (through - truth).square().mean().backward()
        optimizer.step()
        betas.append(float(renderer.beta().detach()))
    assert all(after < before for before, after in itertools.pairwise(betas[:31]))
    assert betas[-1] < 0.02
    with torch.no_grad():
        renderer.raw_beta.zero_()
    assert float(renderer.beta().detach()) == pytest.approx(MIN_BETA)
