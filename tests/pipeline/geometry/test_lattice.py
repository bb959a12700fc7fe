"""The lattice: positions and indices are inverse, bricks tile space, boxes of bricks behave like sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.geometry.lattice import BrickBox, Lattice

coordinate = st.floats(-1e5, 1e5)
lattices = st.builds(
    Lattice,
    st.tuples(coordinate, coordinate, coordinate),
    st.floats(1e-3, 10.0),
    st.integers(2, 64),
)
indices = st.tuples(*[st.integers(-50_000, 50_000)] * 3)
bricks = st.tuples(*[st.integers(-6, 6)] * 3)
boxes = st.tuples(bricks, st.tuples(*[st.integers(0, 5)] * 3)).map(
    lambda b: BrickBox(b[0], tuple(w + n for w, n in zip(*b, strict=True)))
)


def as_set(box: BrickBox) -> set[tuple[int, ...]]:
    return set(map(tuple, box.bricks().tolist()))


@given(lattices, indices)
def test_index_and_position_are_inverse(lattice: Lattice, index: tuple[int, int, int]) -> None:
    world = lattice.sample_world(np.array(index))
    step = np.spacing(np.abs(world).max() + np.abs(lattice.origin_world).max()) / lattice.voxel_size_m
    np.testing.assert_allclose(lattice.index_of(world), index, atol=4 * step + 1e-9)


@given(lattices, indices, st.tuples(*[st.floats(0.01, 0.99)] * 3))
def test_a_point_lies_in_the_brick_that_owns_its_cell(lattice: Lattice, index, within) -> None:
    point = lattice.sample_world(np.array(index)) + lattice.voxel_size_m * np.array(within)
    expected = np.array(index) // lattice.brick_size
    np.testing.assert_array_equal(lattice.brick_of(point), expected)


@given(boxes, boxes)
def test_boxes_are_sets_of_bricks(a: BrickBox, b: BrickBox) -> None:
    assert len(as_set(a)) == a.count
    assert as_set(a.intersect(b)) == as_set(a) & as_set(b)
    if a.count and b.count:
        found = {tuple(x) for x in b.bricks()[a.contains(b.bricks())].tolist()}
        assert found == as_set(a) & as_set(b)


@given(boxes, st.integers(0, 3))
def test_growing_reaches_every_brick_within_the_margin(box: BrickBox, margin: int) -> None:
    grown = box.grow(margin)
    assert as_set(box) <= as_set(grown)
    assert grown.shape == tuple(h - w + 2 * margin for w, h in zip(box.low, box.high, strict=True))


@given(lattices)
def test_json_keeps_every_bit(lattice: Lattice) -> None:
    assert Lattice.from_json(lattice.to_json()) == lattice
