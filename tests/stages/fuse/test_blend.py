"""Blending: weights are a partition of unity, shared samples are bit-identical, absent bricks mean no surface."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import SDF_CLIP_VOXELS as CLIP
from quoin.stages.fuse.blend import (
    MIN_AXIS_WEIGHT,
    absent_signs,
    blend_brick,
    block_weight,
    bricks_to_march,
    smoothstep,
    touching_boxes,
)
from quoin.stages.fuse.tiles import make_block_sdf
from tests.fixtures import synthetic

B = 8
LATTICE = Lattice((0.0, 0.0, 0.0), 1.0, B)


def sources_of(sdfs, n_blocks: int, box: BrickBox, halo: int = 1):
    blocks = synthetic.split_box(box, n_blocks, halo)
    out = []
    for block, sdf in zip(blocks, sdfs, strict=True):
        held = synthetic.sdf_bricks(LATTICE, block, sdf)
        values = held.sdf_voxels.astype(np.float32)
        out.append(make_block_sdf(block.core, halo, held.bricks, values.__getitem__, is_single_block=n_blocks == 1))
    return out


@given(st.floats(-1, 2))
def test_smoothstep_complements_itself(x: float) -> None:
    assert smoothstep(np.array([x, 1 - x])).sum() == pytest.approx(1.0)


@given(st.integers(1, 3), st.integers(1, 2), st.sampled_from([2, 4]))
def test_weights_of_blocks_that_tile_a_box_sum_to_one(side: int, halo: int, n: int) -> None:
    box = BrickBox((0, 0, 0), (4 * side, 4 * side, 4))
    blocks = synthetic.split_box(box, n, halo)
    for brick in [(0, 0, 1), (2 * side - 1, 2 * side - 1, 1), (2 * side, 2 * side, 1), (2 * side, 1, 2)]:
        unbounded = [  # without the outside of the box the only ramps are those between the blocks
            BrickBox(
                tuple(w - 50 if w == o else w for w, o in zip(b.core.low, box.low, strict=True)),
                tuple(h + 50 if h == o else h for h, o in zip(b.core.high, box.high, strict=True)),
            )
            for b in blocks
        ]
        total = sum(block_weight(core, halo, brick, B) for core in unbounded)
        np.testing.assert_allclose(total, 1.0, atol=5 * MIN_AXIS_WEIGHT)


def test_a_weight_is_one_in_the_core_half_on_its_face_and_nothing_at_the_edge() -> None:
    core = BrickBox((0, -40, -40), (8, 40, 40))
    along = [block_weight(core, 1, (x, 0, 0), B)[0, 4, 4] for x in (-1, 0, 1, 4, 7, 8, 9)]
    np.testing.assert_allclose(along, [MIN_AXIS_WEIGHT, 0.5, 1, 1, 1, 0.5, MIN_AXIS_WEIGHT], atol=1e-12)


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
def test_a_shared_sample_has_one_value_whichever_brick_asks(n_blocks: int) -> None:
    box = BrickBox((0, 0, 0), (4, 4, 3))
    truth = synthetic.boxes(((14.3, 17.1, 11.9), (9.2, 8.7, 7.3)))
    sdfs = [synthetic.wavy(truth, 0.9, 9.0, seed) for seed in range(n_blocks)]
    block_sdfs = sources_of(sdfs, n_blocks, box)
    # reading a brick gives slightly other numbers than its neighbour on the shared face, as training may
    for k, block_sdf in enumerate(block_sdfs):
        noise = np.random.default_rng(k).normal(0, 0.02, (len(block_sdf.rows), B + 1, B + 1, B + 1)).astype(np.float32)
        read = block_sdf.read
        object.__setattr__(block_sdf, "read", lambda row, read=read, noise=noise: read(row) + noise[row])
    values: dict[tuple[int, int, int], float] = {}
    n_shared = 0
    for brick in bricks_to_march(block_sdfs):
        samples = synthetic.brick_samples(LATTICE, brick).reshape(-1, 3).tolist()
        blended = blend_brick(block_sdfs, tuple(brick.tolist()), B, CLIP).ravel().tolist()
        for sample, value in zip(map(tuple, samples), blended, strict=True):
            n_shared += sample in values
            assert values.setdefault(sample, value) == value
    assert n_shared > 1000


def test_a_single_block_is_handed_through_unchanged() -> None:
    box = BrickBox((0, 0, 0), (3, 3, 3))
    [block_sdf] = sources_of([synthetic.sphere(7.3, (12.0, 11.5, 12.2))], 1, box)
    for brick, row in block_sdf.rows.items():
        np.testing.assert_array_equal(blend_brick([block_sdf], brick, B, CLIP), block_sdf.read(row))


def test_blocks_that_agree_blend_to_what_they_agree_on() -> None:
    box = BrickBox((0, 0, 0), (4, 4, 2))
    truth = synthetic.plane(9.3)
    block_sdfs = sources_of([truth] * 4, 4, box)
    for brick in [(1, 1, 1), (2, 2, 1), (1, 2, 1), (0, 3, 1)]:
        expected = np.clip(truth(LATTICE.sample_world(synthetic.brick_samples(LATTICE, np.array(brick)))), -CLIP, CLIP)
        np.testing.assert_allclose(blend_brick(block_sdfs, brick, B, CLIP), expected, atol=4e-3)  # float16


def test_absent_bricks_take_the_sign_of_the_side_they_lie_on() -> None:
    box = BrickBox((0, 0, 0), (3, 3, 4))
    [block] = synthetic.split_box(box, 1, 0)
    held = synthetic.sdf_bricks(LATTICE, block, synthetic.plane(13.0))  # all in layer 1
    values = held.sdf_voxels.astype(np.float32)
    sign = absent_signs(box, held.bricks, values.__getitem__)
    assert (sign[:, :, 0] == -1).all()
    assert (sign[:, :, 1] == 0).all()
    assert (sign[:, :, 2:] == 1).all()


def test_the_sign_of_absent_bricks_stays_unknown_where_nothing_or_contradictions_are_held() -> None:
    box = BrickBox((0, 0, 0), (3, 3, 3))
    empty = np.zeros((0, 3), np.int64)
    assert not absent_signs(box, empty, lambda row: np.zeros((B + 1,) * 3, np.float32)).any()
    middle = np.array([[1, 1, 1]])
    plane = synthetic.plane(12.0)(LATTICE.sample_world(synthetic.brick_samples(LATTICE, middle[0]))).astype(np.float32)
    assert not absent_signs(box, middle, lambda row: plane).any()  # the plane leaves through the sides: no one sign


def test_a_block_that_knows_of_no_surface_outvotes_the_halo_of_its_neighbour() -> None:
    box = BrickBox((0, 0, 0), (8, 3, 3))
    ground = synthetic.plane(4.0)
    junk = synthetic.sphere(3.0, (37.0, 12.0, 20.0))  # in the right block's core, in the left block's halo
    left, right = sources_of([lambda p: np.minimum(ground(p), junk(p)), ground], 2, box)
    brick = (4, 1, 2)
    assert left.read(left.rows[brick]).min() < -1
    assert brick not in right.rows
    blended = blend_brick([left, right], brick, B, CLIP)
    assert blended[4:].min() > 0


def test_touching_finds_boxes_that_share_a_sample() -> None:
    low, high = np.array([[0, 0, 0], [2, 0, 0], [4, 0, 0]]), np.array([[2, 2, 2], [4, 2, 2], [6, 2, 2]])
    assert touching_boxes(low, high, (2, 0, 0)).tolist() == [0, 1]
    assert touching_boxes(low, high, (3, 1, 1)).tolist() == [1, 2]
    assert touching_boxes(low, high, (0, 2, 2)).tolist() == [0]
    assert touching_boxes(low, high, (0, 3, 0)).tolist() == []


def test_bricks_where_blocks_disagree_about_the_inside_are_marched_too() -> None:
    box = BrickBox((0, 0, 0), (8, 2, 6))
    deep, shallow = synthetic.plane(12.0), synthetic.plane(36.0)
    block_sdfs = sources_of([deep, shallow], 2, box)
    between = {tuple(b) for b in bricks_to_march(block_sdfs).tolist()}
    assert (3, 0, 2) in between and (4, 0, 3) in between  # layers 2 and 3 lie between the two grounds
    assert (0, 0, 2) not in between and (7, 0, 2) not in between
