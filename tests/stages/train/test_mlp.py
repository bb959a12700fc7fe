"""The tangent MLP: its derivatives and their gradients against autograd's, and the sphere it starts as."""

import math

import pytest
import torch

from stages.train.encoding.dense_grid import DenseGrid
from stages.train.encoding.fourier import RandomFourier
from stages.train.encoding.frequency import Frequency
from stages.train.field.mlp import TangentMLP

VARIANTS = {
    "softplus": {},
    "relu": {"beta": math.inf},
    "skip": {"skip": 2},
    "weight norm": {"skip": 1, "weight_norm": True},
    "sphere": {"skip": 2, "weight_norm": True, "sphere": 0.5},
}


def network(options, n_out=3):
    torch.manual_seed(0)
    encoding = Frequency(2)
    return encoding.double(), TangentMLP(encoding.width, 24, 3, n_out, **options).double()


def cube_points(n):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def by_autograd(encoding, mlp, points):
    """Rows [4, n, out] of the value path and its derivatives, which can be differentiated again."""
    points = points.requires_grad_()
    value = mlp.forward_value(encoding(points))
    slopes = [torch.autograd.grad(column.sum(), points, create_graph=True)[0].T for column in value.unbind(1)]
    return torch.cat([value[None], torch.stack(slopes, dim=2)])


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_tangents_are_derivatives_of_the_value(options):
    encoding, mlp = network(options)
    points = cube_points(30)
    torch.testing.assert_close(mlp(encoding.with_tangents(points)), by_autograd(encoding, mlp, points))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_one_backward_pass_gives_what_double_backward_does(options):
    encoding, mlp = network(options)
    points = cube_points(30)

    def gradients(rows):
        loss = ((rows[1:].norm(dim=0) - 1.0) ** 2).mean() + rows[0].square().mean()
        return torch.autograd.grad(loss, list(mlp.parameters()))

    forward_mode = gradients(mlp(encoding.with_tangents(points)))
    for one, two in zip(forward_mode, gradients(by_autograd(encoding, mlp, points)), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("hidden", "n_layers", "skip", "beta", "close", "slope_close"),
    [(1500, 3, None, math.inf, 0.08, 0.08), (1500, 3, 2, math.inf, 0.06, 0.06), (256, 8, 4, 100.0, 0.2, 0.25)],
    ids=["wide", "wide with a skip", "as in NeuS"],
)
@pytest.mark.parametrize(("inside_out", "sign"), [(False, 1.0), (True, -1.0)])
def test_it_starts_as_a_sphere(hidden, n_layers, skip, beta, close, slope_close, inside_out, sign):
    """The start relies on the law of large numbers: close where layers are wide, roughly so at the usual width."""
    torch.manual_seed(0)
    encoding, radius = Frequency(4), 0.6
    options = {"skip": skip, "beta": beta, "weight_norm": True, "sphere": radius, "inside_out": inside_out}
    mlp = TangentMLP(encoding.width, hidden, n_layers, 2, **options)
    points = cube_points(300).float()
    with torch.no_grad():
        rows = sign * mlp(encoding.with_tangents(points))
    distance = points.norm(dim=1, keepdim=True) - radius
    assert (rows[0] - distance).abs().mean() < close
    assert (rows[0][distance.expand(-1, 2) < -0.4] < 0).all()
    assert (rows[0][distance.expand(-1, 2) > 0.4] > 0).all()
    assert (rows[1:].norm(dim=0) - 1.0).abs().mean() < slope_close


def test_a_skip_keeps_the_width_and_one_that_has_no_layer_is_told():
    mlp = TangentMLP(9, 32, 4, 1, skip=2)
    assert [layer.out_features for layer in mlp.layers] == [32, 23, 32, 32]
    assert [layer.in_features for layer in mlp.layers] == [9, 32, 32, 32]
    for skip in (0, 4):
        with pytest.raises(ValueError, match=f"no hidden layer {skip}"):
            TangentMLP(9, 32, 4, 1, skip=skip)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "encoding", [Frequency(3), RandomFourier(8, 1.0, 0), DenseGrid(8, 6)], ids=lambda e: type(e).__name__
)
def test_it_compiles_with_every_encoding_into_one_graph(encoding):
    mlp = TangentMLP(encoding.width, 32, 3, 2, skip=2, weight_norm=True)
    points = cube_points(64).float()

    def loss(points):
        rows = mlp(encoding.with_tangents(points))
        return ((rows[1:, :, 0].norm(dim=0) - 1.0) ** 2).mean() + rows[0].square().mean()

    parameters = [*mlp.parameters(), *encoding.parameters()]
    eager = torch.autograd.grad(loss(points), parameters)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True, dynamic=False)(points), parameters)
    for one, two in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
