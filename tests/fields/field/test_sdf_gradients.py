"""Gradients by differences: right where they must be, as wide as the finest active level, and shared among cells."""

import pytest
import torch

from quoin.fields.encoding.hash_grid import DenseGrid, HashGrid
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.field.sdf import SurfaceField, central_differences
from quoin.fields.losses import curvature_loss, eikonal_loss

DOUBLE = torch.float64


def cube_points(n, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE) * 1.6 - 0.8


def number(value):
    return torch.tensor(value, dtype=DOUBLE)


@pytest.mark.parametrize("step", [1e-3, 0.5])
def test_gradient_and_laplacian_of_a_quadratic_are_exact_whatever_the_step(step):
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(3, 3, generator=generator, dtype=DOUBLE), torch.randn(3, generator=generator, dtype=DOUBLE)

    def value(points):
        return ((points @ a) * points).sum(dim=1) + points @ b - 0.3

    points = cube_points(50)
    gradient, laplacian = central_differences(value, points, value(points), number(step))
    torch.testing.assert_close(gradient, points @ (a + a.T) + b, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(laplacian, (2 * a.trace()).expand(50), rtol=1e-6, atol=1e-6)


def test_a_ball_bends_as_balls_do_and_a_wall_does_not():
    points = cube_points(50)
    points = points[points.norm(dim=1) > 0.3]

    def ball(points):
        return points.norm(dim=1) - 0.5

    gradient, laplacian = central_differences(ball, points, ball(points), number(1e-3))
    torch.testing.assert_close(gradient, torch.nn.functional.normalize(points, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(laplacian, 2.0 / points.norm(dim=1), atol=1e-4, rtol=0)

    def wall(points):
        return points @ torch.tensor([0.6, 0.0, 0.8], dtype=DOUBLE) - 0.1

    assert curvature_loss(central_differences(wall, points, wall(points), number(0.1))[1]) < 1e-12


def field_of(grid):
    torch.manual_seed(0)
    field = SurfaceField(grid, ScalarMLP(3 + grid.width, 16, 1), None, 4, use_numerical_gradient=True).double()
    torch.nn.init.normal_(field.encoding.table, std=0.1)
    torch.nn.init.normal_(field.network.output_layer.weight)
    return field


@pytest.mark.parametrize(("active", "cells"), [(1.0, 4), (1.2, 8), (2.0, 8), (3.5, 32), (4.0, 32)])
def test_the_step_is_a_cell_of_the_finest_active_level(active, cells):
    """Also seen from the field: its gradient is that of values so far apart, and its curvature is by that length."""
    field, points = field_of(HashGrid(4, 4, 32, 12)), cube_points(20)
    field.encoding.set_progress(active)
    step = 2.0 / cells
    assert float(field.encoding.cell()) == pytest.approx(step)
    sample = field(points)
    torch.testing.assert_close(sample.sdf, field.sdf(points))
    laplacian = torch.zeros(20, dtype=DOUBLE)
    for axis, shift in enumerate(step * torch.eye(3, dtype=DOUBLE)):
        ahead, behind = field.sdf(points + shift), field.sdf(points - shift)
        torch.testing.assert_close(sample.gradient[:, axis], (ahead - behind) / (2 * step))
        laplacian += (ahead + behind - 2 * sample.sdf) / step**2
    torch.testing.assert_close(sample.curvature, laplacian * step)


def test_the_cell_of_a_dense_grid_is_its_own():
    assert float(DenseGrid(50, 1).cell()) == pytest.approx(0.04)


def test_curvature_weighs_less_by_a_level_s_growth_as_levels_come_in():
    """Of a field as curved at all scales; Neuralangelo divides the weight so."""
    grid, points = HashGrid(4, 4, 32, 12).double(), cube_points(30)

    def bowl(points):
        return (points * points).sum(dim=1)

    weighed = []
    for active in (1.0, 2.0, 3.0):
        grid.set_progress(active)
        laplacian = central_differences(bowl, points, bowl(points), grid.cell())[1]
        weighed.append(float(curvature_loss(laplacian * grid.cell())))
    assert weighed[0] / weighed[1] == pytest.approx(2.0)
    assert weighed[1] / weighed[2] == pytest.approx(2.0)


def test_the_eikonal_loss_teaches_cells_beyond_the_one_a_point_lies_in():
    """Neuralangelo's point: the slope inside one cell, however steep its neighbours, is all that an own slope sees."""
    point = torch.tensor([[0.07, -0.31, 0.55]], dtype=DOUBLE)  # of no cell's border
    taught = {}
    for differences in (False, True):
        field = field_of(DenseGrid(16, 2))
        field.use_numerical_gradient = differences
        eikonal_loss(field(point).gradient).backward()
        rows = field.encoding.table.grad.abs().sum(dim=1).view(17, 17, 17).nonzero()
        taught[differences] = rows.amax(dim=0) - rows.amin(dim=0), len(rows)
    assert taught[False][0].tolist() == [1, 1, 1] and taught[False][1] == 8
    assert taught[True][0].tolist() == [3, 3, 3] and taught[True][1] == 32  # six cells beside, each with 4 corners more


def test_the_eikonal_loss_reaches_further_on_every_level_of_a_hash_grid():
    field, point = field_of(HashGrid(3, 4, 16, 14)), torch.tensor([[0.07, -0.31, 0.55]], dtype=DOUBLE)
    touched = {}
    for differences in (False, True):
        field.zero_grad()
        field.use_numerical_gradient = differences
        eikonal_loss(field(point).gradient).backward()
        touched[differences] = (field.encoding.table.grad.abs().sum(dim=1).view(3, -1) > 0).sum(dim=1)
    assert touched[False].tolist() == [8, 8, 8]
    assert (touched[True] > 8).any() and touched[True][2] == 32  # at the finest: the cells beside
    assert (touched[True] >= touched[False]).all()
