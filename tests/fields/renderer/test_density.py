"""A density of its own: what it renders against integrals that are known, and where its samples go."""

import math

import pytest
import torch

from quoin.fields.field.sdf import FieldOutput
from quoin.fields.model import build_model
from quoin.fields.renderer.density import DensityRenderer
from quoin.fields.renderer.renderer import alpha_from_density, weights_from_alpha
from quoin.fields.sampler.importance import HierarchicalSampler
from quoin.fields.sampler.sampler import SurfaceQuery
from quoin.fields.sampler.sections import stratified_samples
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
from quoin.flows.settings import load_settings
from tests.fixtures.rays import ray_segments


def value_of(density, scale):
    """The field's value that gives a density."""
    return -torch.log(torch.expm1(density / scale))


@pytest.mark.parametrize("n", [8, 64])
def test_a_constant_density_is_exact_whatever_the_samples(n):
    """Opacity 1 − exp(−σL), and the mean distance of an exponential cut off at L, in sections that meet."""
    renderer, sigma, length = DensityRenderer(30.0), 1.7, 2.0
    edges = torch.linspace(0.0, length, n + 1)[None]
    sections = edges.diff(dim=1)
    value = value_of(torch.full((1, n), sigma), 30.0)
    torch.testing.assert_close(renderer.density(value), torch.full((1, n), sigma), rtol=1e-4, atol=0)
    weight = weights_from_alpha(renderer.alpha(value, torch.zeros(1, n), sections, torch.ones(())))
    assert float(weight.sum()) == pytest.approx(1 - math.exp(-sigma * length), abs=1e-5)
    mean = float((weight * 0.5 * (edges[:, 1:] + edges[:, :-1])).sum())  # the sections' middles are off by δ²σ / 12
    expected = 1 / sigma - (length + 1 / sigma) * math.exp(-sigma * length)
    assert mean == pytest.approx(expected, abs=(length / n) ** 2 * sigma / 12 + 1e-5)


def test_a_rising_density_tends_to_its_integral():
    """σ(t) = 3t²: the expected colour of c(t) = t over [0, 2] is ∫ t 3t² exp(−t³) dt."""
    distance, length = stratified_samples(torch.zeros(1), torch.full((1,), 2.0), torch.full((1, 4000), 0.5))
    got = float((weights_from_alpha(alpha_from_density(3 * distance**2, length)) * distance).sum())
    fine = torch.linspace(0, 2, 200_001, dtype=torch.float64)
    expected = float(torch.trapezoid(fine * 3 * fine**2 * torch.exp(-(fine**3)), fine))
    assert got == pytest.approx(expected, abs=2e-3)


def test_fine_samples_gather_where_the_density_is():
    torch.manual_seed(0)
    n, wall = 32, 1.3

    def value(points):
        return torch.where((points[:, 2] - wall).abs() < 0.05, -5.0, 5.0)

    origins, directions = torch.zeros(n, 3), torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    rays = ray_segments(origins, directions, torch.zeros(n), torch.full((n,), 2.0))
    surface = SurfaceQuery(value, DensityRenderer(30.0), DenseSdf.over_box(torch.ones(3), 4))
    samples = HierarchicalSampler(48, 32)(rays, surface, torch.rand(n, 80))
    distance = samples.t
    assert distance.shape == samples.deltas.shape == (n, 80)
    assert (distance.diff(dim=1) >= 0).all()
    near = ((distance - wall).abs() < 0.12).float().sum(dim=1)
    assert near.min() > 24  # of 48 even ones some 6 lie there


class Fog(torch.nn.Module):
    """Density σ(t) = 6t with the feature t, along rays from the plane z = 0 upwards."""

    def forward(self, points, condition=None):
        z = points[:, 2]
        return FieldOutput(value_of(6.0 * z.clamp(min=1e-4), 30.0), torch.zeros_like(points), z[:, None])

    def sdf(self, points):
        return self(points).sdf


class Glow(torch.nn.Module):
    """The feature as red; full green."""

    def forward(self, feature, points, normals, directions, condition):
        return torch.cat([feature, torch.ones_like(feature), torch.zeros_like(feature)], dim=1)


class Blue(torch.nn.Module):
    """Outside."""

    def forward(self, points, directions, condition):
        return torch.full_like(points[:, 0], 1e4), torch.tensor([0.0, 0.0, 1.0]).expand(len(points), 3)


def test_nerf_renders_the_integral_of_its_fog():
    """Red ∫ t σ exp(−∫σ) dt over [0, 1], green 1 − exp(−∫σ), blue exp(−∫σ), ∫σ = 3t²: with all of the method."""
    torch.manual_seed(0)
    config = load_settings(overrides=["train.method=nerf", "train.surface.width=64"]).train
    model = build_model(config, SparseSdf.over_box(torch.ones(3), 4), 1)
    model.surface, model.color, model.background = Fog(), Glow(), Blue()
    n = 64
    origins, directions = torch.rand(n, 3) * torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    rays = ray_segments(origins, directions, torch.zeros(n), torch.ones(n))
    samples = model.sample(rays, DenseSdf.over_box(torch.ones(3), 4), torch.rand(n, model.sampler.n_jitter))
    condition = model.appearance(torch.zeros(n, dtype=torch.long))
    behind = torch.tensor([[1.0, 2.0]]).expand(n, 2)
    out = model.render(samples, behind, condition, torch.ones(()), torch.zeros(0, 3))
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    red = float(torch.trapezoid(6 * t * t * torch.exp(-3 * t * t), t))
    expected = torch.tensor([red, 1 - math.exp(-3.0), math.exp(-3.0)])
    torch.testing.assert_close(out.color.mean(dim=0), expected, atol=2e-3, rtol=0)
    assert float((out.color - expected).abs().max()) < 0.02


def shown_after_training(*ablation):
    """PSNR in dB of nerf-hash, small, on fresh rays at a ball with waves on it, after 100 steps."""
    torch.manual_seed(0)
    small = ["encoding.levels=6", "encoding.max_resolution=64", "encoding.log2_table=13"]
    values = ["method=nerf-hash", "background.samples=2", "color.width=32", "sampler.samples=12", *(ablation or small)]
    config = load_settings(overrides=[f"train.{value}" for value in values]).train
    cache = DenseSdf.over_box(torch.ones(3), 32)
    cache.values.copy_((6.0 * (cache.positions().norm(dim=1) - 0.6)).view_as(cache.values))
    model = build_model(config, SparseSdf(cache.values.clone(), cache.low, float(cache.spacing)), 1)
    networks = [
        *model.surface.network.parameters(),
        *model.surface.feature_head.parameters(),
        *model.color.parameters(),
    ]
    groups = [{"params": list(model.surface.encoding.parameters()), "lr": 2e-2}, {"params": networks, "lr": 5e-3}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99))
    model.background.requires_grad_(False)
    generator, n = torch.Generator().manual_seed(1), 128
    for _ in range(101):
        origins = 2.0 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
        directions = torch.nn.functional.normalize(0.5 * torch.rand(n, 3, generator=generator) - 0.25 - origins, dim=1)
        along = (origins * directions).sum(dim=1)
        hit = origins + directions * (-along - (along**2 - 4.0 + 0.36).sqrt())[:, None]
        truth = 0.5 + 0.5 * torch.sin(14.0 * hit) * torch.sin(14.0 * hit.roll(1, dims=1) + 1.0)
        rays = ray_segments(origins, directions, torch.ones(n), torch.full((n,), 3.0))
        with torch.no_grad():
            samples = model.sample(rays, cache, torch.rand(n, model.sampler.n_jitter, generator=generator))
        condition = model.appearance(torch.zeros(n, dtype=torch.long))
        behind = torch.tensor([[3.0, 4.0]]).expand(n, 2)
        out = model.render(samples, behind, condition, torch.ones(()), torch.zeros(0, 3))
        loss = (out.color - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return -10.0 * math.log10(loss.item())


def test_a_hash_grid_shows_a_texture_that_its_networks_alone_do_not():
    """nerf-hash against itself without an encoding, trained as long."""
    assert shown_after_training() > shown_after_training("encoding={kind: frequency, frequencies: 0}") + 1.5
