"""Encoding, volume and field: values and slopes against finite differences and functions they must reproduce."""

import pytest
import torch

from quoin.fields.encoding import hash_grid
from quoin.fields.encoding.hash_grid import HashGrid, level_resolutions
from quoin.fields.field.background import contract
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.field.sdf import SurfaceField
from quoin.fields.sdf_grids import DenseSdf, SparseSdf


def finite_differences(function, points, step=1e-6):
    eye = torch.eye(3, dtype=points.dtype) * step
    return torch.stack([(function(points + e) - function(points - e)) / (2 * step) for e in eye])


def inner_points(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, generator=generator, dtype=torch.float64) * 1.8 - 0.9


def test_levels_grow_geometrically_from_coarsest_to_finest():
    assert level_resolutions(4, 16, 128) == [16, 32, 64, 128]
    assert level_resolutions(1, 16, 128) == [16]


@pytest.mark.parametrize("log2_table", [8, 14])  # hashed and dense
def test_hash_slopes_are_derivatives(log2_table):
    torch.manual_seed(0)
    grid = HashGrid(3, 4, 16, log2_table).double()
    torch.nn.init.normal_(grid.table)
    points = inner_points(50)
    features, pull_back = grid.linearize(points)
    torch.testing.assert_close(features, grid(points))
    slope = torch.randn_like(features)
    expected = (finite_differences(grid, points) * slope).sum(dim=2).T
    torch.testing.assert_close(pull_back(slope), expected, rtol=1e-4, atol=1e-4)


def test_inactive_levels_give_zero():
    grid = HashGrid(4, 4, 32, 10)
    torch.nn.init.normal_(grid.table)
    grid.set_progress(2.5)
    features = grid(inner_points(20).float()).view(20, 4, 2)
    assert (features[:, 3] == 0).all()
    assert (features[:, 1] != 0).any()
    grid.set_progress(4.0)
    torch.testing.assert_close(grid(inner_points(20).float()).view(20, 4, 2)[:, 2] * 0.5, features[:, 2])


def test_triton_reads_grids_on_cuda_alone(monkeypatch):
    monkeypatch.setattr(hash_grid, "HAS_TRITON", True)
    assert hash_grid.uses_triton("cuda")
    assert not hash_grid.uses_triton("cpu")
    assert not hash_grid.uses_triton("cuda", torch.float64)
    monkeypatch.setattr(hash_grid, "HAS_TRITON", False)
    assert not hash_grid.uses_triton("cuda")


def linear_volume():
    volume = DenseSdf.over_box(torch.tensor([1.0, 0.5, 0.75], dtype=torch.float64), 8)
    slope = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    volume.values.copy_((volume.positions() @ slope + 0.1).view_as(volume.values))
    return volume, slope


def as_base(volume):
    return SparseSdf(volume.values.clone(), volume.low, float(volume.spacing))


def test_volume_reproduces_linear_functions_and_their_slope():
    volume, slope = linear_volume()
    points = inner_points(100) * torch.tensor([1.0, 0.5, 0.75])
    value, gradient = volume.with_gradient(points)
    torch.testing.assert_close(value, points @ slope + 0.1)
    torch.testing.assert_close(volume(points), value)
    torch.testing.assert_close(gradient, slope.expand(100, 3))


def test_absorbing_exact_values_keeps_a_linear_volume_and_mends_a_wrong_one():
    volume, slope = linear_volume()
    right = volume.values.clone()
    volume.values.fill_(9.0)
    points = inner_points(5000) * torch.tensor([1.0, 0.5, 0.75])
    everything = torch.ones(len(points), dtype=torch.bool)
    volume.update_nearest(points, points @ slope + 0.1, slope.expand(len(points), 3), everything)
    touched = volume.values != 9.0
    assert touched.float().mean() > 0.8
    torch.testing.assert_close(volume.values[touched], right[touched])


def test_field_gradient_is_the_derivative_of_its_sdf():
    torch.manual_seed(0)
    grid = HashGrid(3, 4, 16, 10)
    field = SurfaceField(grid, ScalarMLP(9, 64, 1), as_base(linear_volume()[0].float()), 15).double()
    torch.nn.init.normal_(field.encoding.table, std=0.1)
    torch.nn.init.normal_(field.network.output_layer.weight)
    points = inner_points(40) * torch.tensor([1.0, 0.5, 0.75])
    sample = field(points)
    torch.testing.assert_close(sample.sdf, field.sdf(points))
    torch.testing.assert_close(sample.gradient.T, finite_differences(field.sdf, points, 1e-7), rtol=1e-3, atol=1e-3)


def test_an_untrained_field_is_its_base_volume():
    volume, _ = linear_volume()
    torch.manual_seed(0)
    grid = HashGrid(3, 4, 16, 10)
    field = SurfaceField(grid, ScalarMLP(9, 64, 1), as_base(volume), 15).double()
    points = inner_points(40) * torch.tensor([1.0, 0.5, 0.75])
    torch.testing.assert_close(field.sdf(points), volume(points), atol=5e-3, rtol=0)


def test_contraction_keeps_the_block_and_bounds_the_rest():
    far = torch.tensor([[0.5, 0.2, -0.1], [1e6, 0.0, 0.0], [0.0, -2.0, 1.0]])
    inside = contract(far)
    torch.testing.assert_close(inside[0], far[0] / 2)
    assert inside.abs().max() <= 1.0
    torch.testing.assert_close(inside[2], torch.tensor([0.0, -0.75, 0.375]))
