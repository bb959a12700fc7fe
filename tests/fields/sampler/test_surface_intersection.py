"""Rays against shapes whose distance is known in closed form, and fields that are no distance at all."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quoin.fields.device import compile_function
from quoin.fields.rays import intersect_ray_box
from quoin.fields.sampler import surface_intersection
from tests.fixtures.rays import ray_segments

DOUBLE = torch.float64
HALF = torch.tensor([0.5, 0.4, 0.3], dtype=DOUBLE)
RING, TUBE = 0.5, 0.2
RADIUS = 0.6


def sphere_trace(value, *ray, **options):
    return surface_intersection.sphere_trace(value, ray_segments(*ray), **options)


def march_and_secant(value, *ray, **options):
    return surface_intersection.march_and_secant(value, ray_segments(*ray), **options)


def sphere(points):
    return points.norm(dim=1) - RADIUS


def plane(points):
    return (points * torch.tensor([0.48, -0.6, 0.64], dtype=points.dtype)).sum(dim=1) - 0.1


def box(points):
    beyond = points.abs() - HALF.to(points.dtype)
    return beyond.clamp(min=0.0).norm(dim=1) + beyond.amax(dim=1).clamp(max=0.0)


def torus(points):
    return torch.stack([points[:, :2].norm(dim=1) - RING, points[:, 2]], dim=1).norm(dim=1) - TUBE


def sphere_truth(origins, directions):
    along = (origins * directions).sum(dim=1)
    return -along - (along**2 - (origins**2).sum(dim=1) + RADIUS**2).sqrt()  # NaN where it misses


def plane_truth(origins, directions):
    slope = plane(directions) + 0.1
    return torch.where(slope < 0, -plane(origins) / slope, torch.nan)


def box_truth(origins, directions):
    rays = intersect_ray_box(origins, directions, -HALF, HALF)
    return torch.where(rays.hits, rays.near, torch.nan)


def torus_truth(origins, directions):
    """First real root of (|p|² + R² − r²)² = 4 R² (x² + y²) along the ray."""
    out = []
    for o, d in zip(origins.numpy(), directions.numpy(), strict=True):
        squared = np.polynomial.Polynomial([o @ o + RING**2 - TUBE**2, 2 * o @ d, 1.0])
        across = np.polynomial.Polynomial([o[:2] @ o[:2], 2 * o[:2] @ d[:2], d[:2] @ d[:2]])
        roots = (squared**2 - 4 * RING**2 * across).roots()
        out.append(min(roots[np.abs(roots.imag) < 1e-7].real, default=np.nan))
    return torch.tensor(out, dtype=DOUBLE)


SHAPES = {
    "sphere": (sphere, sphere_truth),
    "plane": (plane, plane_truth),
    "box": (box, box_truth),
    "torus": (torus, torus_truth),
}


def rays(n=300, seed=0, dtype=DOUBLE):
    """From a sphere of radius 2 towards points in a cube around the shapes."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=DOUBLE), dim=1) * 2.0
    targets = torch.rand(n, 3, generator=generator, dtype=DOUBLE) * 1.4 - 0.7
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    near = torch.full((n,), 0.5, dtype=DOUBLE)
    return tuple(tensor.to(dtype) for tensor in (origins, directions, near, near + 3.0))


def depth_inside(value, origins, directions, near, far, n=2000):
    """How far below 0 the field gets along each ray: > 0 where the ray enters."""
    at = torch.linspace(0.0, 1.0, n, dtype=DOUBLE)[:, None] * (far - near) + near
    return -value((origins + directions * at[..., None]).reshape(-1, 3)).view(at.shape).amin(dim=0)


def tight_trace(value, *ray):
    return sphere_trace(value, *ray, iterations=60, threshold=1e-12)


def tight_march(value, *ray):
    return march_and_secant(value, *ray, n_steps=300, secant_steps=16)


@pytest.mark.parametrize("find", [tight_trace, tight_march])
@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_those_of_the_closed_form(shape, find):
    value, truth_of = SHAPES[shape]
    ray = rays()
    ray = [part[value(ray[0] + ray[1] * ray[2][:, None]) > 0] for part in ray]
    origins, directions, _, far = ray
    truth = truth_of(origins, directions)
    truth = torch.where(truth < far, truth, torch.nan)
    distance, found = find(value, *ray)
    clear = depth_inside(value, *ray).abs() > 1e-3  # a chord longer than the march's spacing, or a clear miss
    assert clear.sum() > 100
    assert (found == ~truth.isnan())[clear].all()
    torch.testing.assert_close(distance[clear & found], truth[clear & found], atol=1e-8, rtol=0)
    assert (distance[~found] == far[~found]).all()


def test_traced_points_lie_within_the_threshold_in_single_precision():
    ray = rays(dtype=torch.float32)
    for value in (sphere, box, torus):
        distance, found = sphere_trace(value, *ray)
        assert distance.dtype == torch.float32
        assert 50 < found.sum() < 280
        assert (value(ray[0] + ray[1] * distance[:, None])[found].abs() <= 5.1e-5).all()


def test_marching_agrees_with_sphere_tracing():
    ray = rays(seed=1)
    clear = depth_inside(torus, *ray).abs() > 1e-2
    (a, found_a), (b, found_b) = sphere_trace(torus, *ray), march_and_secant(torus, *ray, n_steps=128)
    assert (found_a == found_b)[clear].all()
    torch.testing.assert_close(a[clear], b[clear], atol=3e-4, rtol=0)


@given(st.floats(0.0, 1.2))
def test_grazing_rays_hit_until_they_miss(offset):
    one = torch.ones(1, dtype=DOUBLE)
    origins = torch.tensor([[offset, 0.0, -2.0]], dtype=DOUBLE)
    directions = torch.tensor([[0.0, 0.0, 1.0]], dtype=DOUBLE)
    distance, found = sphere_trace(sphere, origins, directions, 0.5 * one, 3.5 * one)
    if offset > RADIUS + 6e-5:
        assert not found
    elif offset < RADIUS - 5e-4:  # the chord is longer than a hundredth of the way
        assert found
        truth = 2.0 - (RADIUS**2 - offset**2) ** 0.5
        slope = max((2.0 - truth) / RADIUS, 1e-2)
        assert abs(float(distance) - truth) < 1e-4 / slope


def warped(points):
    return torus(points + 0.1 * torch.sin(5.0 * points.roll(1, dims=1)))


@pytest.mark.parametrize(("shape", "scale"), [(torus, 1.7), (warped, 1.0), (warped, 1.7), (torus, 0.1)])
def test_fields_that_are_no_distance_still_give_the_first_surface(shape, scale):
    ray = rays(seed=2)
    clear = depth_inside(shape, *ray).abs() > 0.02

    def value(points):
        return scale * shape(points)

    distance, found = sphere_trace(value, *ray, secant_steps=12)
    truth, hit = march_and_secant(value, *ray, n_steps=1000, secant_steps=12)
    assert (found == hit)[clear].all()
    torch.testing.assert_close(distance[clear], truth[clear], atol=5e-3, rtol=0)
    alone, arrived = sphere_trace(value, *ray, secant_steps=12, fallback_share=1e-6)
    wrong = (arrived != hit) | ((alone - truth).abs() > 5e-3)
    assert (wrong & clear).sum() > 20  # what the fallback was for


def test_steps_that_land_inside_are_halved():
    ray = rays(seed=5)

    def value(points):
        return 1.7 * sphere(points)

    _, hit = march_and_secant(value, *ray, n_steps=300)
    distance, found = sphere_trace(value, *ray, iterations=20, fallback_share=1e-6)
    assert (found & hit).sum() > 0.9 * hit.sum()
    assert (value(ray[0] + ray[1] * distance[:, None])[found].abs() <= 5e-5).all()


def test_eight_secants_reach_the_surface_from_sixteen_samples():
    ray = rays(seed=6)
    distance, found = march_and_secant(torus, *ray, n_steps=16)
    assert found.sum() > 50
    assert (torus(ray[0] + ray[1] * distance[:, None])[found].abs() < 1e-8).all()


def test_a_sheet_that_tracing_steps_over_is_seen_by_the_fallback():
    def sheet_and_wall(points):
        z = points[:, 2]
        return 1.7 * torch.minimum((z - 1.0).abs() - 0.05, 2.0 - z)

    one = torch.ones(1, dtype=DOUBLE)
    ray = (torch.zeros(1, 3, dtype=DOUBLE), torch.tensor([[0.0, 0.0, 1.0]], dtype=DOUBLE), 0.0 * one, 3.0 * one)
    distance, found = sphere_trace(sheet_and_wall, *ray)
    assert found
    assert float(distance) == pytest.approx(0.95, abs=1e-9)


def test_a_share_of_the_fallback_goes_to_the_rays_that_are_stuck():
    def half_exact(points):
        return sphere(points) * torch.where(points[:, 0] > 0, 1.0, 0.05)

    ahead = torch.tensor([[0.0, 0.0, 1.0]], dtype=DOUBLE)
    x = torch.tensor([0.1, -0.1, 0.2, -0.2, 0.3, 0.9], dtype=DOUBLE)  # two are stuck, one misses
    origins = torch.stack([x, 0.0 * x, 0.0 * x - 2.0], dim=1)
    ray = (origins, ahead.expand(6, 3), torch.full_like(x, 0.5), torch.full_like(x, 3.5))
    truth = sphere_truth(*ray[:2])
    distance, found = sphere_trace(half_exact, *ray, fallback_share=1 / 3)
    assert found.tolist() == [True, True, True, True, True, False]
    torch.testing.assert_close(distance[:5], truth[:5], atol=1e-4, rtol=0)
    assert sphere_trace(half_exact, *ray, fallback_share=1 / 6)[1].sum() == 4


@pytest.mark.parametrize("find", [sphere_trace, tight_march])
def test_only_a_surface_between_near_and_far_that_is_entered_counts(find):
    origins = torch.tensor([[0.0, 0.0, -2.0]], dtype=DOUBLE).expand(5, 3)
    directions = torch.tensor([[0.0, 0.0, 1.0]], dtype=DOUBLE).expand(5, 3)

    def balls(points):
        return torch.minimum(sphere(points), sphere(points - torch.tensor([0.0, 0.0, 2.0], dtype=DOUBLE)))

    near = torch.tensor([0.5, 1.0, 2.7, 2.0, 0.5], dtype=DOUBLE)  # before, before, between, inside, before
    far = torch.tensor([5.0, 1.3, 5.0, 5.0, 1.5], dtype=DOUBLE)  # behind all, before all, behind all, ..., inside
    distance, found = find(balls, origins, directions, near, far)
    assert found.tolist() == [True, False, True, False, True]
    torch.testing.assert_close(distance, torch.tensor([1.4, 1.3, 3.4, 5.0, 1.4], dtype=DOUBLE), atol=1e-4, rtol=0)


def test_level_moves_the_surface_and_logits_are_turned():
    ray = rays(50, seed=3)
    bigger, found = march_and_secant(sphere, *ray, n_steps=200, level=0.05)
    truth, _ = march_and_secant(lambda points: sphere(points) - 0.05, *ray, n_steps=200)
    torch.testing.assert_close(bigger, truth)

    def logit(points):
        return -20.0 * sphere(points)  # occupied where positive

    turned, occupied = march_and_secant(lambda points: -logit(points), *ray, n_steps=200, level=1.0)
    assert (occupied == found).all()
    torch.testing.assert_close(turned, truth)


@pytest.mark.parametrize("n_steps", [2, 16, 17, 37])
def test_samples_are_equidistant_ends_included(n_steps):
    seen = []

    def value(points):
        seen.append(points[:, 2])
        return torch.ones_like(points[:, 2])

    one = torch.ones(1, dtype=DOUBLE)
    ray = (torch.zeros(1, 3, dtype=DOUBLE), torch.tensor([[0.0, 0.0, 1.0]], dtype=DOUBLE), one, 3.0 * one)
    expected = torch.linspace(1.0, 3.0, n_steps, dtype=DOUBLE)
    _, found = march_and_secant(value, *ray, n_steps=n_steps, secant_steps=0)
    assert not found
    torch.testing.assert_close(torch.cat(seen).unique(), expected)


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors that live at the same time, at most, counted after every operation."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.alive += [weakref.ref(leaf) for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        tensors = [tensor for tensor in (reference() for reference in self.alive) if tensor is not None]
        self.alive = [weakref.ref(tensor) for tensor in tensors]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        self.peak = max(self.peak, sum(storages.values()))
        return out


@pytest.mark.parametrize(
    "search",
    [
        lambda value, ray, n: march_and_secant(value, *ray, n_steps=n),
        lambda value, ray, n: sphere_trace(value, *ray, n_fallback=n),
    ],
)
def test_memory_does_not_grow_with_the_steps_along_a_ray(search):
    ray = rays(64)
    weight = torch.ones((), dtype=DOUBLE, requires_grad=True)
    peak = {}
    for n in (33, 513):
        with PeakMemory() as memory:
            result = search(lambda points: weight * sphere(points), ray, n)
        peak[n] = memory.peak
        assert not any(part.requires_grad for part in tree_leaves(result))
    assert peak[33] == peak[513]
    assert peak[513] < 513 * 64 * 8  # less than one number for every sample


@pytest.mark.compiled
def test_compiled_search_is_the_eager_one():
    ray = rays(64, dtype=torch.float32)

    def search(origins, directions, near, far):
        ray = (origins, directions, near, far)
        traced = sphere_trace(torus, *ray, n_fallback=33, fallback_share=0.5)
        return *traced, *march_and_secant(torus, *ray, n_steps=33)

    for a, b in zip(compile_function(search, "cpu")(*ray), search(*ray), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)
