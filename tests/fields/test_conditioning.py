"""Conditions by ray and by sample, and the chain rule of a warp."""

import torch

from quoin.fields.conditioning import UNCONDITIONED, Conditioning, IdentityWarp, pull_back_gradient


def test_rows_of_rays_become_rows_of_samples_ray_by_ray():
    condition = Conditioning(appearance=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), time=torch.tensor([0.5, 0.7]))
    rows = condition.repeat(2)
    assert rows.appearance.tolist() == [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]
    torch.testing.assert_close(rows.time, torch.tensor([0.5, 0.5, 0.7, 0.7]))
    assert rows.latent is None and rows.pose is None
    assert condition.pad(1).time.tolist()[2:] == [0.0]


def test_shape_does_not_depend_on_the_photo():
    condition = Conditioning(appearance=torch.ones(2, 3), exposure=torch.ones(2, 3), time=torch.ones(2))
    assert condition.geometry() == Conditioning(time=condition.time)
    assert Conditioning(appearance=torch.ones(2, 3)).geometry() == UNCONDITIONED


def test_the_identity_costs_nothing():
    points, gradient = torch.rand(5, 3), torch.rand(5, 3)
    warped, jacobian = IdentityWarp()(points, UNCONDITIONED)
    assert warped is points and jacobian is None
    assert pull_back_gradient(gradient, jacobian) is gradient


def test_a_gradient_is_pulled_back_through_a_warp():
    """f(y) = |y|², y = A x: ∇ₓ f = Aᵀ 2 A x."""
    torch.manual_seed(0)
    matrix, points = torch.randn(3, 3), torch.randn(7, 3)
    warped = points @ matrix.T
    got = pull_back_gradient(2.0 * warped, matrix.expand(7, 3, 3))
    torch.testing.assert_close(got, 2.0 * points @ matrix.T @ matrix)
