"""Multiresolution extraction: what marching cubes makes of it, and of the whole lattice, is one and the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from quoin.fields.mise import mise
from quoin.stages.fuse.marching_cubes import EdgeKeys, marching_cubes

WAVES = np.random.default_rng(0).normal(size=(6, 3)) * 3.0
PHASES = np.random.default_rng(1).uniform(0.0, 6.0, 6)


def sphere(points):
    return np.linalg.norm(points, axis=1) - 0.8


def torus(points):
    return np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.6, points[:, 2]) - 0.25


def two_blobs(points):
    centers = np.array([[0.45, 0.0, 0.0], [-0.45, 0.1, 0.0]])
    return 0.6 - np.exp(-12.0 * np.square(points[:, None] - centers).sum(axis=2)).sum(axis=1)


def waves(points):
    return np.sin(points @ WAVES.T + PHASES).sum(axis=1)


def lattice(resolution):
    return np.indices((resolution + 1,) * 3).reshape(3, -1).T.astype(float)


def mixed(samples):
    """Bool [x-1, y-1, z-1], of a slab's cells or faces too: corners on both sides of zero, zero being on either."""
    low = high = samples
    for axis, size in enumerate(samples.shape):
        if size > 1:
            low = np.minimum(low.take(range(size - 1), axis), low.take(range(1, size), axis))
            high = np.maximum(high.take(range(size - 1), axis), high.take(range(1, size), axis))
    return (low <= 0) & (high >= 0)


@pytest.mark.parametrize("function", [sphere, torus, two_blobs, waves])
@pytest.mark.parametrize("level", [0.0, 0.15])
def test_the_mesh_is_that_of_the_whole_lattice(function, level):
    n = 64

    def value(index):
        return function(index * (2.0 / n) - 1.0)

    values, n_asked = mise(value, (n, n, n), 4, level)
    whole = value(lattice(n)).reshape(values.shape)
    assert n_asked < 0.4 * whole.size
    assert ((values > level) == (whole > level)).all()
    keys = EdgeKeys((0, 0, 0), values.shape)
    ours, theirs = (marching_cubes(samples - level, np.zeros(3, int), keys) for samples in (values, whole))
    assert len(theirs.faces) > 500
    assert np.array_equal(ours.keys, theirs.keys)
    assert np.array_equal(ours.fractions, theirs.fractions)
    assert np.array_equal(ours.faces, theirs.faces)


def test_a_bumpy_ball_at_256_is_the_same_mesh_for_less_than_15_percent_of_the_evaluations():
    """Its occupancy's logit, which saturates a few cells off the surface: nothing but the sign tells where that is."""
    x, y, z = np.meshgrid(*[np.linspace(-1.0, 1.0, 257, dtype=np.float32)] * 3, indexing="ij", sparse=True)
    bumps = 0.05 * np.sin(11.0 * x) * np.sin(9.0 * y + 1.0) * np.sin(10.0 * z + 2.0)
    whole = np.tanh(40.0 * (np.sqrt(x * x + y * y + z * z) - 0.7 + bumps)) * np.float32(20.0)
    asked = []

    def value(index):
        asked.append(len(index))
        return whole[tuple(index.astype(int).T)]

    values, n_asked = mise(value, (256, 256, 256), 8)
    assert sum(asked) == n_asked < 0.15 * whole.size
    keys = EdgeKeys((0, 0, 0), values.shape)
    ours, theirs = (marching_cubes(samples, np.zeros(3, int), keys) for samples in (values, whole))
    assert len(theirs.faces) > 100_000
    assert np.array_equal(ours.keys, theirs.keys)
    assert np.array_equal(ours.fractions, theirs.fractions)
    assert np.array_equal(ours.faces, theirs.faces)


def test_sides_may_differ():
    shape = (32, 16, 48)

    def value(index):
        return sphere((index - [16.0, 8.0, 30.0]) / 8.0)

    values, n_asked = mise(value, shape, 4)
    whole = value(np.indices([n + 1 for n in shape]).reshape(3, -1).T.astype(float)).reshape(values.shape)
    assert n_asked < 0.5 * whole.size
    assert np.array_equal(mixed(values), mixed(whole)) and mixed(whole).any()
    assert np.array_equal(values > 0, whole > 0)


def test_a_surface_that_bulges_between_coarse_samples_is_followed():
    """A finger one coarse cell long and thinner than it, out of a wall that the coarse grid sees."""

    def value(index):
        finger = np.maximum(np.hypot(index[:, 1] - 20.0, index[:, 2] - 20.0) - 2.0, np.abs(index[:, 0] - 16.0) - 13.0)
        return np.minimum(index[:, 0] - 5.5, finger)

    values, _ = mise(value, (32, 32, 32), 8)
    assert np.array_equal(mixed(values), mixed(value(lattice(32)).reshape(values.shape)))


def pieces(samples):
    """A number per cell [n³], equal for cells with surface that a chain of faces with surface joins."""
    n = samples.shape[0] - 1
    cell = np.arange(n**3).reshape(n, n, n)
    pairs = []
    for axis in range(3):
        inner = np.moveaxis(samples, axis, 0)[1:-1]
        joined = np.stack([mixed(layer[None])[0] for layer in inner]) if n > 1 else np.zeros((0, n, n), bool)
        along = np.moveaxis(cell, axis, 0)
        pairs.append(np.stack([along[:-1][joined], along[1:][joined]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n**3, n**3))
    return connected_components(graph, directed=False)[1].reshape(n, n, n)


@given(
    arrays(np.int8, (9, 9, 9), elements=st.integers(-2, 2), fill=st.sampled_from([1, 2])),
    st.sampled_from([4, 2, 1]),
)
def test_of_any_field_whole_pieces_of_surface_are_found_and_nothing_else(field, stride):
    asked = np.zeros(field.shape, int)

    def value(index):
        place = tuple(index.astype(int).T)
        np.add.at(asked, place, 1)
        return field[place].astype(float)

    values, n_asked = mise(value, (8, 8, 8), stride)
    assert asked.max() == 1  # none twice
    assert asked.sum() == n_asked
    assert (values == field)[asked == 1].all()
    found, truth, piece = mixed(values), mixed(field), pieces(field)
    assert np.array_equal(found, truth & np.isin(piece, piece[found]))
    corners = [asked[x : 8 + x, y : 8 + y, z : 8 + z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    assert (np.min(corners, axis=0)[found] == 1).all()
    if stride == 2:  # halved once: a coarse cell that holds surface is asked in full
        seen = mixed(field[::2, ::2, ::2]).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        assert (found == truth)[seen].all()
    if stride == 1:
        assert np.array_equal(values, field)


@pytest.mark.parametrize(("cells", "stride"), [((16, 16, 16), 32), ((48, 48, 48), 3), ((32, 20, 32), 8)])
def test_strides_that_halving_does_not_end_are_told(cells, stride):
    with pytest.raises(ValueError, match="power of two"):
        mise(sphere, cells, stride)
