"""Derivatives of distances against rays traced anew after a small change; losses against what they stand for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stages.train.renderer.surface import attach_distance, empty_points_loss, occupied_points_loss, silhouette_loss
from stages.train.sampler.trace import least_along, march_and_secant, sphere_trace

DOUBLE = torch.float64


class BumpyBall(nn.Module):
    """A ball with a small network's bumps: no exact distance."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.radius = nn.Parameter(torch.tensor(0.6, dtype=DOUBLE))
        self.first = nn.Parameter(torch.randn(8, 3, generator=generator, dtype=DOUBLE) * 1.5)
        self.shift = nn.Parameter(torch.randn(8, generator=generator, dtype=DOUBLE))
        self.last = nn.Parameter(torch.randn(8, generator=generator, dtype=DOUBLE) * 0.05)

    def forward(self, points):
        return points.norm(dim=1) - self.radius + torch.tanh(points @ self.first.T + self.shift) @ self.last


def rays(n=12):
    generator = torch.Generator().manual_seed(1)
    origins = nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=DOUBLE), dim=1) * 2.0
    targets = torch.rand(n, 3, generator=generator, dtype=DOUBLE) * 0.5 - 0.25
    near = torch.full((n,), 0.5, dtype=DOUBLE)
    return origins, nn.functional.normalize(targets - origins, dim=1), near, near + 3.0


def march(value, *ray):
    return march_and_secant(value, *ray, n_steps=64)


def trace(value, *ray):
    return sphere_trace(value, *ray, iterations=40, threshold=1e-13)


def attached(field, find, origins, directions, near, far):
    distance, found = find(field, origins, directions, near, far)
    assert found.all()
    points = origins + directions * distance[:, None]
    probe = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(field(probe).sum(), probe)
    return attach_distance(distance, field(points), (gradient * directions).sum(dim=1))


def differences(function, tensor, step=1e-5):
    """Central differences of a number by each entry of a tensor, which is changed in place and back."""
    out = torch.empty_like(tensor)
    with torch.no_grad():
        for entry, slot in zip(tensor.view(-1), out.view(-1), strict=True):
            before = entry.clone()
            high = function(entry.copy_(before + step))
            low = function(entry.copy_(before - step))
            entry.copy_(before)
            slot.copy_((high - low) / (2 * step))
    return out


@pytest.mark.parametrize("find", [march, trace])
def test_gradient_by_the_parameters_is_that_of_tracing_anew(find):
    field, ray = BumpyBall(), rays()
    weight = torch.linspace(-1.0, 2.0, len(ray[0]), dtype=DOUBLE)
    (attached(field, find, *ray) * weight).sum().backward()
    for parameter in field.parameters():
        expected = differences(lambda _: (find(field, *ray)[0] * weight).sum(), parameter.data)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_by_origins_and_directions_is_that_of_tracing_anew(which):
    field, ray = BumpyBall(), list(rays())
    weight = torch.linspace(-1.0, 2.0, len(ray[0]), dtype=DOUBLE)
    ray[which] = ray[which].clone().requires_grad_()
    (attached(field, march, *ray) * weight).sum().backward()
    expected = differences(lambda _: (march(field, *ray)[0] * weight).sum(), ray[which].data)
    torch.testing.assert_close(ray[which].grad, expected, rtol=1e-6, atol=1e-7)


def test_default_tracing_gives_the_gradient_within_its_threshold():
    field, ray = BumpyBall(), rays()
    gradients = []
    for find in (sphere_trace, trace):
        attached(field, find, *ray).sum().backward()
        gradients.append(torch.cat([parameter.grad.view(-1) for parameter in field.parameters()]))
        field.zero_grad()
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_surface_points_move_along_the_ray_only_and_stay_on_the_surface():
    field, (origins, directions, near, far) = BumpyBall(), rays()
    distance = attached(field, march, origins, directions, near, far)
    points = origins + directions * distance[:, None]
    along = torch.autograd.grad(points[0] @ directions[0], field.radius, retain_graph=True)[0]
    across = torch.autograd.grad(points[0] @ torch.linalg.cross(directions[0], origins[0]), field.radius)[0]
    assert float(along) < -0.5  # a larger ball is nearer
    assert abs(float(across)) < 1e-12


def test_distance_keeps_its_value():
    distance = torch.tensor([1.3, 2.0], dtype=DOUBLE)
    value = torch.tensor([3e-5, -1e-5], dtype=DOUBLE, requires_grad=True)
    result = attach_distance(distance, value, torch.tensor([-1.0, -0.5], dtype=DOUBLE))
    assert torch.equal(result, distance)
    result.sum().backward()
    torch.testing.assert_close(value.grad, torch.tensor([1.0, 2.0], dtype=DOUBLE))


@given(st.floats(-2.0, 2.0))
def test_grazing_slopes_are_kept_away_from_zero_with_their_sign(slope):
    value = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    attach_distance(torch.ones(1, dtype=DOUBLE), value, torch.tensor([slope], dtype=DOUBLE)).sum().backward()
    steep = math.copysign(max(abs(slope), 1e-3), slope if slope != 0 else -1.0)
    assert float(value.grad) == pytest.approx(-1.0 / steep)


def saved_bytes(n_steps, find):
    """What autograd keeps between forward and backward, and the gradient that comes out."""
    field, ray = BumpyBall(), rays()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.nbytes), t)[1], lambda t: t):
        loss = attached(field, lambda value, *ray: find(value, ray, n_steps), *ray).sum()
    loss.backward()
    return sum(kept), field.radius.grad


@pytest.mark.parametrize(
    "find",
    [
        lambda value, ray, n: march_and_secant(value, *ray, n_steps=n),
        lambda value, ray, n: sphere_trace(value, *ray, n_fallback=n),
    ],
)
def test_what_autograd_saves_does_not_grow_with_the_steps(find):
    (few, coarse), (many, fine) = saved_bytes(16, find), saved_bytes(512, find)
    assert few == many > 0
    torch.testing.assert_close(coarse, fine, rtol=1e-3, atol=0)


def test_depth_alone_finds_the_radius_of_a_ball():
    ray = rays(32)
    truth, _ = march_and_secant(lambda points: points.norm(dim=1) - 0.7, *ray, n_steps=64)
    radius = torch.tensor(0.4, dtype=DOUBLE, requires_grad=True)

    def ball(points):
        return points.norm(dim=1) - radius

    for _ in range(40):
        distance, found = sphere_trace(ball, *ray)
        points = ray[0] + ray[1] * distance[:, None]
        normal = nn.functional.normalize(points, dim=1)
        distance = attach_distance(distance, ball(points), (normal * ray[1]).sum(dim=1))
        loss = (torch.where(found, distance - truth, 0.0) ** 2).sum() / found.sum()
        (slope,) = torch.autograd.grad(loss, radius)
        with torch.no_grad():
            radius -= 0.2 * slope
    assert float(radius.detach()) == pytest.approx(0.7, abs=1e-4)


def scalar(value):
    return torch.tensor(value, dtype=DOUBLE)


def test_silhouette_counts_where_the_ray_missed_or_the_mask_is_empty():
    least = torch.tensor([0.02, 0.02, -0.01, -0.01], dtype=DOUBLE, requires_grad=True)
    inside = torch.tensor([True, False, False, True])
    found = torch.tensor([False, False, True, True])
    loss = silhouette_loss(least, inside, found, scalar(50.0))

    def softplus(x):
        return math.log1p(math.exp(x))

    assert float(loss.detach()) == pytest.approx((softplus(1.0) + softplus(-1.0) + softplus(0.5)) / 50.0 / 4)
    loss.backward()
    assert least.grad[0] > 0  # descent pulls the surface to a ray that should hit
    assert (least.grad[1:3] < 0).all()  # and away from one that should not
    assert least.grad[3] == 0


def test_silhouette_of_a_sharp_alpha_is_the_distance_on_the_wrong_side():
    least = torch.tensor([0.3, -0.2, 0.3, -0.2], dtype=DOUBLE)
    inside = torch.tensor([True, True, False, False])
    loss = silhouette_loss(least, inside, torch.zeros(4, dtype=torch.bool), scalar(1e4))
    assert float(loss) == pytest.approx((0.3 + 0.2) / 4, abs=1e-4)


def test_masks_alone_grow_a_ball_to_its_outline():
    """Parallel rays, inside the mask up to 0.5 from the axis: the loss is least where the ball's radius is 0.5."""
    across = torch.linspace(0.0, 1.0, 101, dtype=DOUBLE)
    origins = torch.stack([across, 0.0 * across, 0.0 * across - 2.0], dim=1)
    directions = torch.tensor([[0.0, 0.0, 1.0]], dtype=DOUBLE).expand(101, 3)
    near, far = torch.full_like(across, 0.5), torch.full_like(across, 3.5)

    def slope(start):
        radius = scalar(start).requires_grad_()

        def ball(points):
            return points.norm(dim=1) - radius

        _, found = sphere_trace(ball, origins, directions, near, far)
        distance = least_along(ball, origins, directions, near, far, n_steps=101)
        least = ball(origins + directions * distance[:, None])
        return float(torch.autograd.grad(silhouette_loss(least, across < 0.5, found, scalar(400.0)), radius)[0])

    assert slope(0.4) < -0.05
    assert slope(0.6) > 0.05


def test_points_that_should_be_empty_or_occupied():
    value = torch.tensor([0.0, 3.0, -3.0, 100.0], dtype=DOUBLE, requires_grad=True)
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=DOUBLE)
    occupancy = torch.sigmoid(-value.detach()[:3])
    empty, occupied = empty_points_loss(value, weight), occupied_points_loss(value, weight)
    torch.testing.assert_close(empty.detach(), -(1.0 - occupancy).log().mean())
    torch.testing.assert_close(occupied.detach(), -occupancy.log().mean())
    (pushed_out,) = torch.autograd.grad(empty, value)
    (pulled_in,) = torch.autograd.grad(occupied, value)
    assert (pushed_out[:3] < 0).all() and (pulled_in[:3] > 0).all()  # descent raises one and lowers the other
    assert pushed_out[3] == pulled_in[3] == 0
    assert empty_points_loss(value, 0.0 * weight) == 0.0
