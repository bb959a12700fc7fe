"""What photos agree to be a plane becomes one, and nothing else moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.stages.fuse.mesh import Mesh
from quoin.stages.fuse.observations import PlaneVotes, snap_to_planes

PLANES = np.array([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])


def sheet(noise_m, seed=0, n=20):
    """A rough sheet about z = 0 that faces up; vertices 5 cm apart."""
    y, x = np.mgrid[:n, :n]
    z = np.random.default_rng(seed).normal(0, noise_m, x.shape)
    at = (y * n + x)[:-1, :-1].ravel()
    faces = np.concatenate([np.column_stack([at, at + 1, at + n]), np.column_stack([at + 1, at + n + 1, at + n])])
    return Mesh(np.stack([x * 0.05, y * 0.05, z], axis=-1).reshape(-1, 3), faces)


def voted(n_vertices, *numbers):
    votes = PlaneVotes.empty(n_vertices)
    for plane_index in numbers:
        votes.add(np.arange(n_vertices), np.full(n_vertices, plane_index))
    return votes


def test_a_rough_wall_becomes_flat_and_what_lies_farther_off_stays():
    mesh = sheet(0.004)
    mesh.vertices_world[:40, 2] = 0.05  # a ledge
    flat = snap_to_planes(mesh, voted(400, 0, 0), PLANES, mesh.vertex_normals(), 0.02)
    moved = flat.vertices_world - mesh.vertices_world
    assert np.abs(moved[:, :2]).max() == 0
    assert np.abs(flat.vertices_world[100:, 2]).max() < 1e-12
    assert (flat.vertices_world[:40] == mesh.vertices_world[:40]).all()
    assert flat.faces is mesh.faces


@pytest.mark.parametrize("numbers", [(0,), (0, 1), (0, 0, 1), (), (1, 1, 1), (2, 2, 2)])
def test_one_photo_a_tie_and_a_plane_that_faces_away_move_nothing(numbers):
    mesh = sheet(0.004)
    assert (snap_to_planes(mesh, voted(400, *numbers), PLANES, mesh.vertex_normals(), 0.02).vertices_world
            == mesh.vertices_world).all()  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_a_plane_that_most_photos_show_is_found_in_any_order(numbers):
    votes = voted(1, *numbers)
    best = max(numbers, key=numbers.count)
    margin = 2 * numbers.count(best) - len(numbers)
    if margin > 0:
        assert votes.plane_index[0] == best
        assert votes.lead[0] >= margin
