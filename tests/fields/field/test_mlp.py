"""The network of one output: its slopes and their gradients against autograd's, and the sphere it starts as."""

import math

import pytest
import torch

from quoin.fields.encoding.fourier import FrequencyEncoding, RandomFourierEncoding
from quoin.fields.encoding.hash_grid import DenseGrid
from quoin.fields.field.mlp import ScalarMLP

VARIANTS = {
    "softplus": {},
    "relu": {"beta": math.inf},
    "skip": {"skip": 2},
    "weight norm": {"skip": 1, "weight_norm": True},
    "sphere": {"skip": 2, "weight_norm": True, "sphere_radius": 0.5},
}


def network(options):
    torch.manual_seed(0)
    encoding = FrequencyEncoding(2)
    mlp = ScalarMLP(encoding.width, 24, 3, **options)
    with torch.no_grad():
        mlp.output_layer.weight.add_(0.1 * torch.randn(1, 24))  # not near 0
    return encoding.double(), mlp.double()


def linearize(encoding, mlp, points):
    """Value [n] and gradient [n, 3] in the forward pass."""
    features, pull_back = encoding.linearize(points)
    value, slope, _ = mlp.linearize(features)
    return value, pull_back(slope)


def cube_points(n):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def by_autograd(encoding, mlp, points):
    """The value path and its gradient, which can be differentiated again."""
    points = points.requires_grad_()
    value = mlp(encoding(points))
    return value, torch.autograd.grad(value.sum(), points, create_graph=True)[0]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_slopes_are_derivatives_of_the_value(options):
    encoding, mlp = network(options)
    points = cube_points(30)
    for one, other in zip(linearize(encoding, mlp, points), by_autograd(encoding, mlp, points), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_one_backward_pass_gives_what_double_backward_does(options):
    encoding, mlp = network(options)
    points = cube_points(30)

    def gradients(value, gradient):
        loss = ((gradient.norm(dim=1) - 1.0) ** 2).mean() + value.square().mean()
        return torch.autograd.grad(loss, list(mlp.parameters()))

    by_hand = gradients(*linearize(encoding, mlp, points))
    for one, two in zip(by_hand, gradients(*by_autograd(encoding, mlp, points)), strict=True):
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
    encoding, radius = FrequencyEncoding(4), 0.6
    options = {"skip": skip, "beta": beta, "weight_norm": True, "sphere_radius": radius, "inside_out": inside_out}
    mlp = ScalarMLP(encoding.width, hidden, n_layers, **options)
    points = cube_points(300).float()
    with torch.no_grad():
        value, gradient = linearize(encoding, mlp, points)
    distance = points.norm(dim=1) - radius
    assert (sign * value - distance).abs().mean() < close
    assert (sign * value[distance < -0.4] < 0).all()
    assert (sign * value[distance > 0.4] > 0).all()
    assert (gradient.norm(dim=1) - 1.0).abs().mean() < slope_close


def test_a_skip_keeps_the_width_and_one_that_has_no_layer_is_told():
    mlp = ScalarMLP(9, 32, 4, skip=2)
    assert [layer.out_features for layer in mlp.layers] == [32, 23, 32, 32]
    assert [layer.in_features for layer in mlp.layers] == [9, 32, 32, 32]
    for skip in (0, 4):
        with pytest.raises(ValueError, match=f"no hidden layer {skip}"):
            ScalarMLP(9, 32, 4, skip=skip)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "encoding",
    [FrequencyEncoding(3), RandomFourierEncoding(8, 1.0, 0), DenseGrid(8, 6)],
    ids=lambda e: type(e).__name__,
)
def test_it_compiles_with_every_encoding_into_one_graph(encoding):
    mlp = ScalarMLP(encoding.width, 32, 3, skip=2, weight_norm=True)
    points = cube_points(64).float()

    def loss(points):
        value, gradient = linearize(encoding, mlp, points)
        return ((gradient.norm(dim=1) - 1.0) ** 2).mean() + value.square().mean()

    parameters = [*mlp.parameters(), *encoding.parameters()]
    eager = torch.autograd.grad(loss(points), parameters)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True, dynamic=False)(points), parameters)
    for one, two in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
