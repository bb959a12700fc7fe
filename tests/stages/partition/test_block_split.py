"""Blocks tile the region, balance cost, and are split until they fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.geometry.lattice import BrickBox
from quoin.stages.partition.block_split import (
    BrickCosts,
    PointsByBrick,
    estimate_brick_costs,
    split_balanced,
    split_into_cores,
)

side_limits = st.tuples(*[st.integers(2, 12)] * 3)


def load_of(box: BrickBox, seed: int) -> BrickCosts:
    rng = np.random.default_rng(seed)
    bricks = box.bricks()[rng.random(box.count) < 0.4]
    bricks = bricks if len(bricks) else box.bricks()[:1]
    cost = rng.uniform(0.1, 1.0, len(bricks))
    return BrickCosts(bricks, cost / cost.sum())


def as_set(box: BrickBox) -> set[tuple[int, ...]]:
    return set(map(tuple, box.bricks().tolist()))


@given(side_limits, st.integers(0, 100), st.integers(1, 9))
def test_cores_tile_the_region(shape, seed: int, min_blocks: int) -> None:
    box = BrickBox((-1, 0, 2), (shape[0] - 1, shape[1], shape[2] + 2))
    cores = split_into_cores(
        box, load_of(box, seed), lambda core: core.count <= 60, min_blocks=min_blocks, side_limits=(2, 7)
    )
    owned = [brick for core in cores for brick in as_set(core)]
    assert len(owned) == len(set(owned))
    assert set(owned) == as_set(box)
    assert all(min(core.shape) >= 2 and max(core.shape) <= 7 for core in cores)


@given(side_limits, st.integers(0, 100))
def test_cores_are_split_until_they_fit_or_cannot_be_split(shape, seed: int) -> None:
    box = BrickBox((0, 0, 0), shape)
    for core in split_into_cores(
        box, load_of(box, seed), lambda core: core.count <= 30, min_blocks=1, side_limits=(2, 99)
    ):
        assert core.count <= 30 or max(core.shape) < 4


def test_one_block_when_it_fits_and_as_many_as_asked_for() -> None:
    box = BrickBox((0, 0, 0), (8, 8, 8))
    brick_costs = load_of(box, 0)
    assert split_into_cores(box, brick_costs, lambda core: True, min_blocks=1, side_limits=(2, 99)) == [box]
    for n in (2, 3, 5, 8):
        cores = split_into_cores(box, brick_costs, lambda core: True, min_blocks=n, side_limits=(2, 99))
        assert len(cores) == n
        assert max(brick_costs.cost_in(c) for c in cores) < 2.6 / n  # the costliest is split first
    assert len(split_into_cores(box, brick_costs, lambda core: True, min_blocks=1000, side_limits=(2, 99))) == 64


def test_a_split_balances_cost_not_volume() -> None:
    box = BrickBox((0, 0, 0), (16, 4, 4))
    bricks = np.array([[1, 1, 1], [3, 1, 1], [5, 2, 2], [13, 2, 2]])
    halves = split_balanced(box, BrickCosts(bricks, np.full(4, 0.25)), (2, 99))
    assert halves is not None
    assert 4 <= halves[0].high[0] <= 5
    assert halves[1].low[0] == halves[0].high[0]


@given(st.integers(4, 60), st.integers(0, 50))
def test_a_long_side_is_cut_into_no_more_pieces_than_must(side: int, seed: int) -> None:
    box = BrickBox((0, 0, 0), (side, 3, 3))
    cores = split_into_cores(box, load_of(box, seed), lambda core: True, min_blocks=1, side_limits=(2, 8))
    assert len(cores) == -(-side // 8)


def test_a_core_too_narrow_stays_whole() -> None:
    assert split_balanced(BrickBox((0, 0, 0), (3, 3, 3)), load_of(BrickBox((0, 0, 0), (3, 3, 3)), 0), (2, 99)) is None


def test_load_shares_sum_to_one_and_follow_observations() -> None:
    bricks = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [5, 5, 5]])
    brick_costs = estimate_brick_costs(bricks, np.array([3, 3, 3, 9]))
    assert brick_costs.cost.sum() == pytest.approx(1.0)
    by_brick = {tuple(b): c for b, c in zip(brick_costs.bricks.tolist(), brick_costs.cost, strict=True)}
    assert by_brick[(5, 5, 5)] == pytest.approx(0.5 * 9 / 18 + 0.5 / 3)
    assert by_brick[(0, 0, 0)] == pytest.approx(0.5 * 6 / 18 + 0.5 / 3)
    assert brick_costs.cost_in(BrickBox((0, 0, 0), (2, 1, 1))) == pytest.approx(1 - by_brick[(5, 5, 5)])


def test_points_of_a_box_are_found_without_the_others() -> None:
    rng = np.random.default_rng(0)
    brick = rng.integers(-6, 7, (5000, 3))
    points = PointsByBrick.from_point_bricks(brick)
    for _ in range(20):
        low = rng.integers(-8, 6, 3)
        box = BrickBox(tuple(low.tolist()), tuple((low + rng.integers(1, 8, 3)).tolist()))
        np.testing.assert_array_equal(points.within(box), np.flatnonzero(box.contains(brick)))
    assert len(PointsByBrick.from_point_bricks(brick[:0]).within(box)) == 0
