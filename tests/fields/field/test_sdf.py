"""Derivatives of distances and of pictures against rays traced and rendered anew after a small change."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quoin.fields.model import build_model
from quoin.fields.renderer.surface_rendering import attach_distance
from quoin.fields.sampler import surface_intersection
from quoin.fields.sampler.surface_intersection import RayMarchingSampler, SphereTracingSampler
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
from quoin.flows.settings import load_settings
from tests.fixtures.rays import ray_segments

DOUBLE = torch.float64


def sphere_trace(value, *ray, **options):
    return surface_intersection.sphere_trace(value, ray_segments(*ray), **options)


def march_and_secant(value, *ray, **options):
    return surface_intersection.march_and_secant(value, ray_segments(*ray), **options)


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


def rays(n=12, spread=0.5):
    generator = torch.Generator().manual_seed(1)
    origins = nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=DOUBLE), dim=1) * 2.0
    targets = (torch.rand(n, 3, generator=generator, dtype=DOUBLE) - 0.5) * spread
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


def model_of(method):
    """A small one of the method, in double precision, with a sampler that finds the surface to the last digits."""
    torch.manual_seed(0)
    values = [f"method={method}", "encoding.frequencies=2", "surface.width=32", "surface.layers=2", "surface.skip=1"]
    config = load_settings(overrides=[f"train.{value}" for value in [*values, "background.samples=2"]]).train
    model = build_model(config, SparseSdf.over_box(torch.ones(3), 4), 1).double()
    model.sampler = RayMarchingSampler(64, 24)
    return model


def picture(model, origins, directions, near, far):
    """What is rendered of rays, found anew."""
    n, cache = len(origins), DenseSdf.over_box(torch.ones(3, dtype=DOUBLE), 4)
    samples = model.sample(ray_segments(origins, directions, near, far), cache, near.new_zeros(n, 0))
    behind = far[:, None] + torch.tensor([0.0, 1.0], dtype=DOUBLE)
    condition = model.appearance(torch.zeros(n, dtype=torch.long))
    return model.render(samples, behind, condition, near.new_ones(()), near.new_zeros(0, 3))


@pytest.mark.parametrize("method", ["idr", "dvr"])
def test_colours_change_with_the_surface_as_a_picture_rendered_anew_does(method):
    """Through the point itself, and through the normal and the feature there."""
    model, ray = model_of(method), rays(40, 2.0)
    opacity = picture(model, *ray).opacity
    assert 10 < opacity.sum() < 40
    inner = picture(model, ray[0], ray[1] + 1e-4, *ray[2:]).opacity == opacity  # no outline nearby
    weight = torch.linspace(-1.0, 2.0, 40, dtype=DOUBLE)[:, None] * (inner & (opacity > 0))[:, None]
    parameters = list(model.surface.parameters())
    analytic = torch.autograd.grad((picture(model, *ray).color * weight).sum(), parameters)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        way = [torch.randn(p.shape, generator=generator, dtype=DOUBLE) for p in parameters]
        seen = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for parameter, part in zip(parameters, way, strict=True):
                    parameter += step * part
                seen.append(float((picture(model, *ray).color * weight).sum()))
                for parameter, part in zip(parameters, way, strict=True):
                    parameter -= step * part
        expected = (seen[0] - seen[1]) / 2e-6
        got = sum(float((slope * part).sum()) for slope, part in zip(analytic, way, strict=True))
        assert got == pytest.approx(expected, rel=1e-4)
        assert abs(expected) > 1e-3


def test_a_ray_shows_the_surface_or_what_lies_outside_and_never_both():
    model, ray = model_of("idr"), rays(60, 2.0)
    out = picture(model, *ray)
    found = out.opacity > 0
    assert 10 < found.sum() < 55
    assert set(out.opacity.tolist()) == {0.0, 1.0}
    of_colour, of_outside = list(model.color.parameters()), list(model.background.color.parameters())

    def reached(rows, parameters):
        slopes = torch.autograd.grad(out.color[rows].sum(), parameters, retain_graph=True)
        return max(float(slope.abs().max()) for slope in slopes)

    assert reached(found, of_colour) > 1e-3
    assert reached(found, of_outside) < 1e-5  # weights let 1e-7 through
    assert reached(~found, of_outside) > 1e-3
    assert reached(~found, of_colour) == 0.0


@pytest.mark.parametrize("sampler", [lambda n: RayMarchingSampler(n, 8), lambda n: SphereTracingSampler(10, n, 8)])
def test_what_a_picture_keeps_for_its_gradient_does_not_grow_with_the_steps(sampler):
    kept = {}
    for n in (16, 512):
        model, ray, sizes = model_of("idr"), rays(20), []
        model.sampler = sampler(n)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.nbytes), t)[1], lambda t: t):
            picture(model, *ray).color.sum().backward()
        kept[n] = sum(sizes)
    assert kept[16] == kept[512] > 0
