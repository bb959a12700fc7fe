"""Who renders which stretch of a ray: all of it once, in order, whatever the cut into blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.tools.render.block_segments import BlockBoxes, block_segments, composite, find_end_blocks, intersect_box


def grid(shape, halo=0.2):
    """Unit boxes of a grid, grown by a halo for their outer boxes."""
    low = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3).astype(float)
    cores = np.stack([low, low + 1.0], axis=1)
    return BlockBoxes(cores, cores + np.array([[-halo], [halo]]))


def rays(n, origin):
    """Through points of a box somewhat larger than the grid."""
    directions = np.random.default_rng(0).uniform([-1.0, -1, -1], [4.0, 3, 3], (n, 3)) - origin
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("origin", [[-3.0, 0.7, 0.4], [0.5, 0.5, 0.5], [5.0, 6.0, -4.0]])
def test_the_stretches_of_a_ray_tile_what_one_block_would_render(origin):
    origin, directions, boxes = np.array(origin), rays(500, origin), grid((3, 2, 2))
    whole = np.array([[0.0, 0, 0], [3.0, 2, 2]])
    owned = find_end_blocks(origin, directions, boxes)
    parts = [block_segments(origin, directions, boxes, owned, b) for b in range(len(boxes.cores))]
    ends = np.sum([last for _, _, last in parts], axis=0)
    assert (ends == 1).all(), "every ray ends in one block"
    begin, end = (np.stack([p[i] for p in parts], 1) for i in (0, 1))
    there = end > begin + 1e-9
    enter, leave, crosses = intersect_box(origin, directions, whole)
    outer_enter, outer_leave, _ = intersect_box(origin, directions, whole + np.array([[-0.2], [0.2]]))
    assert crosses.sum() > 20
    for ray in np.flatnonzero(crosses):
        order = np.argsort(begin[ray][there[ray]])
        b, e = begin[ray][there[ray]][order], end[ray][there[ray]][order]
        np.testing.assert_allclose(b[1:], e[:-1], atol=1e-9)
        assert outer_enter[ray] - 1e-9 <= b[0] <= enter[ray] + 1e-9
        assert leave[ray] - 1e-9 <= e[-1] <= outer_leave[ray] + 1e-9


def test_a_single_block_renders_its_outer_box():
    origin, directions, boxes = np.array([-2.0, 0.5, 0.5]), rays(300, [-2.0, 0.5, 0.5]), grid((1, 1, 1))
    begin, end, last = block_segments(origin, directions, boxes, find_end_blocks(origin, directions, boxes), 0)
    enter, leave, _ = intersect_box(origin, directions, boxes.outers[0])
    assert last.all()
    np.testing.assert_array_equal(begin, enter)
    np.testing.assert_array_equal(end, leave)


def test_a_ray_that_meets_nothing_belongs_to_the_nearest_block():
    origin, boxes = np.array([4.5, 0.5, 5.0]), grid((3, 1, 1))
    owned = find_end_blocks(origin, np.array([[0.0, 0.0, 1.0]]), boxes)
    assert owned.first.tolist() == owned.last.tolist() == [2]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1), st.floats(0, 1)), max_size=12), st.randoms())
def test_parts_in_any_order_give_what_one_ray_after_the_other_does(parts, random):
    parts = [(ray, index, value, opacity) for index, (ray, value, opacity) in enumerate(parts)]
    random.shuffle(parts)
    expected, through = np.zeros(4), np.ones(4)
    for ray, _, value, opacity in sorted(parts, key=lambda p: p[1]):
        expected[ray] += through[ray] * value
        through[ray] *= 1 - opacity
    columns = [np.array([p[i] for p in parts]) for i in range(4)]
    ray, begin = columns[0].astype(np.int64), columns[1].astype(np.float64)
    values, opacity = columns[2].astype(np.float32)[:, None], columns[3].astype(np.float32)
    got, covered = composite(ray, begin, values, opacity, 4)
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(covered, 1 - through, atol=1e-5)
