"""Triton kernels of the hash grid against their PyTorch twin: on a GPU if there is one, else by its interpreter."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.fields.encoding import hash_grid
from quoin.fields.encoding.hash_grid import HashGrid

pytest.importorskip("triton", reason="triton is not installed (the extra gpu-test)")

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
with mock.patch.dict(os.environ, {} if ON_GPU else {"TRITON_INTERPRET": "1"}):  # read where kernels are defined
    from quoin.fields.encoding import hash_grid_triton


def path(by_triton):
    return mock.patch.object(hash_grid, "uses_triton", return_value=by_triton)


def drawn(generator, *shape):
    return torch.randn(*shape, generator=generator).to(DEVICE)


def filled(generator, **sizes):
    grid = HashGrid(**sizes).to(DEVICE)
    grid.table.data = drawn(generator, *grid.table.shape)
    return grid


def points_anywhere(generator, n, resolutions):
    """Within the box, on borders of cells, at the box's corners, and outside it, in turns."""
    points = torch.rand(n, 3, generator=generator) * 2 - 1
    cells = resolutions.cpu()[torch.randint(len(resolutions), (n,), generator=generator)][:, None]
    points[1::4] = (((points * 0.5 + 0.5) * cells).round() / cells * 2 - 1)[1::4]
    points[2::4] = points[2::4].sign()
    points[3::4] *= 1.7
    return points.to(DEVICE)


def everything(grid, points, slope, by_features, by_gradient, by_triton):
    """Features, slopes by position, and the gradients of a random sum of both by the table and by the slopes."""
    grid.table.grad = None
    slope = slope.clone().requires_grad_()
    with path(by_triton):
        features, pull_back = grid.linearize(points)
        gradient = pull_back(slope)
        ((features * by_features).sum() + (gradient * by_gradient).sum()).backward()
        alone = grid(points)
    return features.detach(), gradient.detach(), grid.table.grad, slope.grad, alone.detach()


@given(
    n=st.integers(1, hash_grid_triton.BLOCK + 50),
    n_levels=st.integers(1, 3),
    n_features=st.sampled_from([1, 2, 3, 4, 8]),
    base_resolution=st.integers(2, 8),
    max_resolution=st.integers(9, 600),
    log2_table=st.integers(4, 12),  # of hashed levels alone up to dense ones alone
    active=st.floats(0.0, 3.0),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=100 if ON_GPU else 10)
def test_kernels_give_values_slopes_and_gradients_of_their_twin(
    n, n_levels, n_features, base_resolution, max_resolution, log2_table, active, seed
):
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "n_levels": n_levels,
        "base_resolution": base_resolution,
        "max_resolution": max_resolution,
        "log2_table": log2_table,
    }
    grid = filled(generator, n_features=n_features, **sizes)
    grid.set_progress(active)
    given_ = (
        points_anywhere(generator, n, grid.resolutions),
        drawn(generator, n, grid.width),
        drawn(generator, n, grid.width),
        drawn(generator, n, 3),
    )
    expected, got = everything(grid, *given_, by_triton=False), everything(grid, *given_, by_triton=True)
    for name, right, ours in zip(("features", "slopes", "by table", "by slope", "alone"), expected, got, strict=True):
        scale = max(1.0, float(right.abs().max()))  # sums of up to n terms of either sign
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=2e-6 * scale, msg=lambda text, at=name: f"{at}: {text}")


def test_a_level_that_is_not_active_is_neither_read_nor_trained():
    generator = torch.Generator().manual_seed(0)
    grid = filled(generator, n_levels=3, base_resolution=4, max_resolution=16, log2_table=8)
    grid.table.data.view(3, -1)[2] = torch.nan
    grid.set_progress(1.5)
    with path(True):
        features, pull_back = grid.linearize(points_anywhere(generator, 50, grid.resolutions))
        (features.sum() + pull_back(torch.ones_like(features)).sum()).backward()
    by_level = features.detach().view(50, 3, 2)
    assert (by_level[:, 2] == 0).all()
    assert (by_level[:, :2] != 0).all()
    by_level = grid.table.grad.view(3, -1)
    assert (by_level[2] == 0).all()
    assert (by_level[:2] != 0).any(dim=1).all()


def test_points_that_are_no_numbers_read_within_the_table():
    grid = filled(torch.Generator().manual_seed(0), n_levels=2, base_resolution=4, max_resolution=6, log2_table=9)
    points = torch.tensor([[torch.nan, torch.inf, -torch.inf]], device=DEVICE)
    with path(True):
        features = grid(points)
    assert features.abs().max() <= grid.table.abs().max()


def test_no_points_are_no_features():
    grid = filled(torch.Generator().manual_seed(0), n_levels=2, base_resolution=4, max_resolution=8, log2_table=6)
    with path(True):
        features, pull_back = grid.linearize(torch.zeros(0, 3, device=DEVICE))
        assert pull_back(features).shape == (0, 3)
        features.sum().backward()
    assert features.shape == (0, 4)
    assert (grid.table.grad == 0).all()


@pytest.mark.compiled
@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_compiled_for_cuda_it_is_one_graph_for_all_progress():
    """The twin's numbers, and no graph after the first when levels become active."""
    import torch._dynamo.utils

    generator = torch.Generator().manual_seed(0)
    grid = filled(generator, n_levels=5, base_resolution=8, max_resolution=128, log2_table=12)
    points, slope = points_anywhere(generator, 5000, grid.resolutions), drawn(generator, 5000, grid.width)
    by_features, by_gradient = drawn(generator, 5000, grid.width), drawn(generator, 5000, 3)

    @torch.compile(fullgraph=True, dynamic=False)
    def loss(points, slope):
        features, pull_back = grid.linearize(points)
        return (features * by_features).sum() + (pull_back(slope) * by_gradient).sum()

    graphs = []
    for active in (2.0, 3.4, 5.0):
        grid.set_progress(active)
        *_, expected, _, _ = everything(grid, points, slope, by_features, by_gradient, by_triton=False)
        expected, grid.table.grad = expected.clone(), None
        loss(points, slope).backward()
        torch.testing.assert_close(grid.table.grad, expected, rtol=1e-4, atol=1e-4)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == 1
