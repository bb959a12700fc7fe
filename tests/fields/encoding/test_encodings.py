"""Encodings: slopes against finite differences, and what each promises of its features."""

import math

import pytest
import torch

from quoin.fields.encoding.fourier import FrequencyEncoding, RandomFourierEncoding
from quoin.fields.encoding.hash_grid import DenseGrid
from quoin.fields.field.mlp import ScalarMLP


def inner_points(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, generator=generator, dtype=torch.float64) * 1.8 - 0.9


def windowed(active_levels):
    encoding = FrequencyEncoding(5)
    encoding.set_progress(active_levels)
    return encoding


def filled_grid(resolution=7):
    grid = DenseGrid(resolution, 4)
    torch.nn.init.normal_(grid.table, generator=torch.Generator().manual_seed(0))
    return grid


@pytest.mark.parametrize(
    "encoding",
    [
        FrequencyEncoding(5),
        FrequencyEncoding(3, include_input=False),
        FrequencyEncoding(0),
        windowed(2.3),
        RandomFourierEncoding(9, 0.7, 0),
        filled_grid(),
    ],
    ids=["frequency", "waves alone", "input alone", "windowed", "fourier", "grid"],
)
def test_slopes_are_derivatives(encoding):
    encoding, points, step = encoding.double(), inner_points(60), 1e-6
    features, pull_back = encoding.linearize(points)
    assert features.shape == (60, encoding.width)
    torch.testing.assert_close(features, encoding(points))
    slope = torch.randn(60, encoding.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradient = pull_back(slope)
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        numeric = (encoding(points + shift) - encoding(points - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, axis], (numeric * slope).sum(dim=1), rtol=1e-6, atol=1e-5)


def test_frequencies_double_from_one_and_know_no_pi():
    point = torch.tensor([[0.3, -0.5, 0.9]])
    features = FrequencyEncoding(3)(point)[0]
    torch.testing.assert_close(features[:3], point[0])
    for k in range(3):
        torch.testing.assert_close(features[3 + 6 * k : 6 + 6 * k], torch.sin(2**k * point[0]))
        torch.testing.assert_close(features[6 + 6 * k : 9 + 6 * k], torch.cos(2**k * point[0]))


def test_the_window_opens_level_by_level_and_leaves_the_input():
    points = inner_points(20).float()
    encoding, whole = FrequencyEncoding(4), FrequencyEncoding(4)(points)
    encoding.set_progress(1.5)
    torch.testing.assert_close(encoding(points)[:, :9], whole[:, :9])
    torch.testing.assert_close(encoding(points)[:, 9:15], whole[:, 9:15] / 2)
    assert (encoding(points)[:, 15:] == 0).all()
    encoding.set_progress(1.25)
    torch.testing.assert_close(encoding(points)[:, 9:15], whole[:, 9:15] * (0.5 - math.sqrt(0.125)))
    encoding.set_progress(4.0)
    torch.testing.assert_close(encoding(points), whole)


def test_random_fourier_features_are_those_of_a_gaussian_kernel():
    """Their scalar product estimates exp(−2π² scale² |x − y|²), by Bochner's theorem."""
    encoding, x, y = RandomFourierEncoding(20_000, 0.4, 7).double(), inner_points(50, 1), inner_points(50, 2)
    similarity = (encoding(x) * encoding(y)).sum(dim=1) / 20_000
    expected = torch.exp(-2 * math.pi**2 * 0.4**2 * (x - y).square().sum(dim=1))
    torch.testing.assert_close(similarity, expected, atol=0.03, rtol=0)


def test_random_fourier_features_follow_their_seed_and_travel_with_the_state():
    points = inner_points(5).float()
    one, same, other = (
        RandomFourierEncoding(8, 1.0, 3),
        RandomFourierEncoding(8, 1.0, 3),
        RandomFourierEncoding(8, 1.0, 4),
    )
    assert torch.equal(one(points), same(points))
    assert not torch.equal(one(points), other(points))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(points), other(points))
    assert not list(one.parameters())


def test_a_grid_reproduces_linear_functions_up_to_its_border():
    grid, slope = DenseGrid(5, 2).double(), torch.tensor([[0.3, 2.0], [-1.2, 0.1], [0.7, -0.4]], dtype=torch.float64)
    axis = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)
    corners = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    grid.table.data = corners @ slope
    points = torch.cat([inner_points(100), corners])
    features, pull_back = grid.linearize(points)
    torch.testing.assert_close(features, points @ slope)
    torch.testing.assert_close(pull_back(torch.ones_like(features)), slope.sum(dim=1).expand(len(points), 3))


def test_a_point_trains_the_eight_corners_of_its_cell():
    grid = DenseGrid(4, 3)
    grid(torch.tensor([[0.1, -0.3, 0.6]])).sum().backward()
    touched = grid.table.grad.view(5, 5, 5, 3).abs().sum(dim=3).nonzero()
    assert touched.min(dim=0).values.tolist() == [2, 1, 3]
    assert touched.max(dim=0).values.tolist() == [3, 2, 4]
    assert len(touched) == 8
    assert float(grid.table.grad.sum()) == pytest.approx(3.0)


def test_frequencies_let_a_network_learn_a_texture_it_cannot_learn_without():
    """A network of x alone prefers what is smooth (NeRF sec. 5.1, Tancik et al. 2020)."""
    error = {}
    for n_frequencies in (0, 5):
        torch.manual_seed(0)
        encoding = FrequencyEncoding(n_frequencies)
        network = ScalarMLP(encoding.width, 64, 3, beta=math.inf)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(300):
            points = torch.rand(1024, 3) * 2 - 1
            target = torch.sign(torch.sin(9 * points[:, 0]) * torch.sin(9 * points[:, 1]))
            loss = ((network(encoding(points)) - target) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error[n_frequencies] = loss.item()
    assert error[5] < 0.6 * error[0]
