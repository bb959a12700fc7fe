"""The volume training starts from: bricks of finer cells in a coarse grid, and depth maps fused into them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.fields.sdf_grids import CELLS_PER_COARSE, SparseSdf
from quoin.stages.train.data.initial_sdf import (
    DepthMap,
    PlaneMap,
    build_initial_sdf,
    cells_near_points,
    fuse_tsdf,
    has_neighbors,
)

HALF = torch.tensor([1.0, 0.5, 0.75], dtype=torch.float64)
SLOPE = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)


def random_points(n, seed=0):
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1) * HALF


def linear(share, seed=0):
    volume = SparseSdf.over_box(HALF, 8)
    volume.values.copy_(volume.positions() @ SLOPE + 0.1)
    cells = torch.rand(volume.brick_start.shape, generator=torch.Generator().manual_seed(seed)) < share
    volume.refine(cells)
    return volume, cells


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_linear_functions_and_their_slope_are_kept_whatever_is_refined(share, seed):
    volume, cells = linear(share, seed)
    assert len(volume.values) == int(volume.shape.prod()) + int(cells.sum()) * (CELLS_PER_COARSE + 1) ** 3
    torch.testing.assert_close(volume.positions() @ SLOPE + 0.1, volume.values)
    points = random_points(500, seed)
    value, gradient = volume.with_gradient(points)
    torch.testing.assert_close(value, points @ SLOPE + 0.1)
    torch.testing.assert_close(volume(points), value)
    torch.testing.assert_close(gradient, SLOPE.expand_as(gradient))


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_copies_of_a_sample_lie_where_it_lies(share, seed):
    volume, _ = linear(share, seed)
    canonical_indices, positions = volume.canonical_indices(), volume.positions()
    torch.testing.assert_close(positions[canonical_indices], positions)
    assert torch.equal(canonical_indices[canonical_indices], canonical_indices)


def test_each_sample_between_bricks_has_one_that_stands_for_it():
    volume, _ = linear(1.0)
    n_coarse, positions = int(volume.shape.prod()), volume.positions()
    within = (positions < volume.low + (volume.shape - 1) * volume.coarse_spacing - 1e-9).all(dim=1)[n_coarse:]
    assert len(volume.canonical_indices()[n_coarse:][within].unique()) == int(
        ((volume.shape - 1) * CELLS_PER_COARSE).prod()
    )


def test_refined_cells_resolve_what_coarse_ones_do_not():
    volume = SparseSdf.over_box(torch.ones(3), 16)
    cells = torch.zeros_like(volume.brick_start, dtype=torch.bool)
    cells.view(16, 16, 16)[8:] = True  # x > 0
    volume.refine(cells)
    volume.values.copy_(volume.positions().norm(dim=1) - 0.6)
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    points = points[((points.norm(dim=1) - 0.6).abs() < 0.2)]
    error = (volume(points) - (points.norm(dim=1) - 0.6)).abs()
    fine = points[:, 0] > 0
    assert error[fine].mean() < error[~fine].mean() / (
        0.8 * CELLS_PER_COARSE**2
    )  # linear interpolation errs by the square


def test_outside_the_box_the_border_goes_on():
    volume, _ = linear(0.5)
    points = random_points(50) * 3.0
    torch.testing.assert_close(volume(points), volume(torch.minimum(torch.maximum(points, -HALF), HALF)))


def wall(depth_m, size=64):
    """A camera at the origin that looks along z at a wall, half of which it knows."""
    depth = np.full((size, size), depth_m, np.float32)
    depth[:, size // 2 :] = 0.0
    k = np.array([size / 2, size / 2, size / 2, size / 2], np.float64)
    return DepthMap(depth, k, np.eye(4)[:3])


def test_fused_depths_are_the_distance_before_the_wall_and_nothing_far_behind_it():
    positions = torch.tensor([[-0.1, 0.0, z] for z in (0.5, 0.95, 1.05, 1.5)] + [[0.1, 0.0, 1.0]])
    fused, count = fuse_tsdf(positions, [wall(1.0), wall(1.02)], [], 0.1)
    assert count.tolist() == [2, 2, 2, 0, 0]
    assert fused[:3].tolist() == pytest.approx([0.1, 0.06, -0.04], abs=1e-6)


def test_the_seed_has_its_surface_where_depths_say_and_is_free_before_it():
    side = np.linspace(-0.4, -0.02, 60)
    points = np.stack(np.meshgrid(side, side + 0.2, indexing="ij"), -1).reshape(-1, 2)
    points = np.concatenate([points, np.full((len(points), 1), 0.5)], axis=1)
    viewer_direction = -points / np.linalg.norm(points, axis=1, keepdims=True)
    volume = build_initial_sdf(SparseSdf.over_box(torch.ones(3), 16), points, viewer_direction, {0: wall(0.5)}, {})
    along = torch.linspace(0.3, 0.6, 61)
    ray = torch.stack([-0.4 * along, torch.zeros(61), along], dim=1)
    sdf = volume(ray)
    assert (sdf[along < 0.48] > 0).all()
    crossing = along[int((sdf < 0).nonzero()[0, 0])]
    assert float(crossing) == pytest.approx(0.5, abs=0.5 * float(volume.fine_spacing))


def test_planes_of_bare_surfaces_count_as_a_depth_map_does():
    side = np.linspace(-0.4, 0.4, 80)
    points = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    points = np.concatenate([points, np.full((len(points), 1), 0.5)], axis=1)
    viewer_direction = -points / np.linalg.norm(points, axis=1, keepdims=True)
    bare = PlaneMap(np.zeros((64, 64), np.int32), np.array([[0, 0, -1, -0.55]]), *wall(0.55)[1:])
    volume = build_initial_sdf(
        SparseSdf.over_box(torch.ones(3), 16), points, viewer_direction, {0: wall(0.5)}, {0: bare}
    )
    along = torch.linspace(0.35, 0.6, 51)
    for side_of, there in ((-0.3, 0.525), (0.3, 0.55)):  # told by both, by the plane alone
        sdf = volume(torch.stack([side_of * along, torch.zeros(51), along], dim=1))
        crossing = along[int((sdf < 0).nonzero()[0, 0])]
        assert float(crossing) == pytest.approx(there, abs=0.5 * float(volume.fine_spacing))


def test_a_wrong_point_leaves_nothing_where_depths_see_through_it():
    wrong = np.array([[-0.12, 0.0, 0.35]])
    far = np.array([[0.9, 0.9, -0.9], [0.9, -0.9, -0.9], [-0.9, 0.9, -0.9], [-0.9, -0.9, -0.9]])  # so its skin is thick
    volume = build_initial_sdf(
        SparseSdf.over_box(torch.ones(3), 64),
        np.concatenate([wrong, far]),
        np.tile([0, 0, -1.0], (5, 1)),
        {0: wall(0.9)},
        {},
    )
    along = torch.linspace(0.2, 0.8, 200)
    assert (volume(torch.stack([along * -0.12 / 0.35, torch.zeros(200), along], dim=1)) > 0).all()


def test_cells_near_a_point_are_its_own_and_those_it_is_close_to():
    cells = cells_near_points(np.array([[0.26, 0.375, 0.49]]), -np.ones(3), 0.25, (9, 9, 9)).reshape(8, 8, 8)
    assert np.argwhere(cells).tolist() == [[4, 5, 5], [4, 5, 6], [5, 5, 5], [5, 5, 6]]


def test_points_alone_are_told_from_those_in_company():
    rng = np.random.default_rng(0)
    plane = np.concatenate([rng.random((4000, 2)), np.zeros((4000, 1))], axis=1)
    alone = np.array([[0.5, 0.5, 0.6], [0.52, 0.5, 0.6], [0.2, 0.8, -0.5]])
    company = has_neighbors(np.concatenate([plane, alone]), 16, 0.08)
    assert company[:4000].mean() > 0.99
    assert not company[4000:].any()
    assert not has_neighbors(alone, 16, 0.08).any()
