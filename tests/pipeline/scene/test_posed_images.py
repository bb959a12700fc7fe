"""What one stage puts into the store, the next takes out unchanged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.imaging import labels
from quoin.pipeline.imaging.filters import build_pyramid
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import (
    SDF_CLIP_VOXELS,
    Block,
    Partition,
    SdfBricks,
    read_block,
    read_brick_index,
    read_partition,
    read_sdf_brick,
    read_total_cost,
    write_partition,
    write_sdf_bricks,
)
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_table, write_photo_table
from quoin.pipeline.storage.run import Run
from tests.fixtures.synthetic import faces_camera, posed_points, ring_of_cameras, sphere_points


class Nothing(StageResult):
    pass


@pytest.fixture
def reopened(run: Run):
    """Commits a stage and opens the run again, as the next process would."""

    def commit_and_open(stage: str) -> Run:
        run.commit(stage, "key", Nothing(), 0.0)
        return Run.open(run.path)

    return commit_and_open


def posed_of(rng: np.random.Generator, photos: int, points: int) -> posed_images.Posed:
    lengths = rng.integers(2, 5, points)
    total = int(lengths.sum())
    return posed_images.Posed(
        names=[f"ordner/Foto {i}\n秋.jpg" for i in range(photos)],
        photo_ids=rng.permutation(100)[:photos].astype(np.int64),
        cam_from_world=rng.normal(size=(photos, 3, 4)),
        intrinsics=rng.uniform(100, 200, (photos, 4)),
        sizes=rng.integers(10, 20, (photos, 2)),
        points_world=rng.normal(size=(points, 3)),
        point_errors_px=rng.uniform(size=points),
        point_colors=rng.integers(0, 256, (points, 3)).astype(np.uint8),
        track_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        track_photo=rng.integers(0, max(photos, 1), total),
        track_xy=rng.uniform(0, 10, (total, 2)),
    )


def assert_same(a: object, b: object) -> None:
    """Dataclasses of arrays, equal to the last bit and in type."""
    for item in dataclasses.fields(a):  # type: ignore[arg-type]
        x, y = getattr(a, item.name), getattr(b, item.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, item.name
            np.testing.assert_array_equal(x, y, err_msg=item.name)
        else:
            assert x == y, item.name


# -- photos ----------------------------------------------------------------------------------------------------------


def test_the_photo_table_keeps_every_file_and_orders_the_used_ones(run: Run):
    rows = [
        PhotoRow("b.jpg", "/p/b.jpg", photo_id=1, border=(1, 0, 2, 0)),
        PhotoRow("bad\n.jpg", "/p/bad\n.jpg").rejected(Reason.TOO_SMALL, "64 x 3 pixels"),
        PhotoRow("a.jpg", "/p/a.jpg", photo_id=0, focal_px=812.5),
    ]
    write_photo_table(run, rows)
    assert [r.name for r in read_photo_table(run)] == ["b.jpg", "bad\n.jpg", "a.jpg"]
    used = read_photo_table(run, used_only=True)
    assert [r.photo_id for r in used] == [0, 1]
    assert used[1].border == (1, 0, 2, 0)
    assert str(read_photo_table(run)[1].rejection) == "too small: 64 x 3 pixels"
    assert used[0].focal_px == 812.5
    assert np.isnan(used[1].focal_px)


def test_an_empty_photo_table_has_its_columns(run: Run):
    write_photo_table(run, [])
    assert read_photo_table(run) == []


def test_undistorted_photos_and_masks(run: Run):
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 256, (16 >> k, 24 >> k, 3)).astype(np.uint8) for k in range(3)]
    mask = np.where(rng.uniform(size=(16, 24)) > 0.5, 255, 0).astype(np.uint8)
    posed_images.write_photo(run, 3, levels, mask)
    for level, rgb in enumerate(levels):
        np.testing.assert_array_equal(posed_images.read_photo(run, 3, level), rgb)
    np.testing.assert_array_equal(posed_images.read_mask(run, 3), mask)
    with pytest.raises(QuoinError):
        posed_images.read_photo(run, 4)


# -- poses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("photos", "points"), [(5, 40), (2, 1), (1, 0)])
def test_posed_photos_points_and_tracks(run: Run, reopened, photos: int, points: int):
    posed = posed_of(np.random.default_rng(1), photos, points)
    posed_images.write_posed(run, posed)
    back = posed_images.read_posed(reopened("pose"))
    assert_same(posed, back)
    assert len(back) == photos
    np.testing.assert_array_equal(np.bincount(back.track_point, minlength=points), back.track_lengths)


def test_a_second_pose_leaves_nothing_of_the_first(run: Run, reopened):
    rng = np.random.default_rng(2)
    posed_images.write_posed(run, posed_of(rng, 6, 30))
    posed_images.write_posed(run, second := posed_of(rng, 3, 10))
    assert_same(second, posed_images.read_posed(reopened("pose")))


def test_poses_are_not_readable_before_their_commit(run: Run):
    posed_images.write_posed(run, posed_of(np.random.default_rng(3), 2, 2))
    with pytest.raises(QuoinError, match="'pose' has not been completed"):
        posed_images.read_posed(run)


def test_frames_keep_their_provenance(run: Run):
    hop = Similarity(2.0, np.eye(3)[[1, 2, 0]], np.array([1e6, -2.5, 0.1]), "GPS of 12 photos")
    assert posed_images.read_transform(run, "world_from_sfm") is None
    posed_images.write_transform(run, "world_from_sfm", hop)
    posed_images.write_transform(run, "sfm_from_other", Similarity.identity())
    assert_same(hop, posed_images.read_transform(Run.open(run.path), "world_from_sfm"))
    assert posed_images.read_transform(run, "absent") is None


def test_labels_keep_their_level_and_may_be_absent(run: Run):
    drawn = np.random.default_rng(6).choice([labels.UNKNOWN, labels.SKY, labels.TRANSIENT], (5, 7)).astype(np.uint8)
    assert priors.read_labels(run, 3) is None
    priors.write_labels(run, 3, drawn, level=2)
    found = priors.read_labels(run, 3)
    assert found is not None
    np.testing.assert_array_equal(found[0], drawn)
    assert (found[0].dtype, found[1]) == (np.uint8, 2)


def test_depth_maps_keep_their_level_and_may_be_absent(run: Run):
    depth = np.random.default_rng(5).uniform(0, 9, (6, 8)).astype(np.float32)
    assert priors.read_depth(run, 2) is None
    priors.write_depth(run, 2, depth, level=1)
    priors.write_hypotheses(run, 2, "planes", np.stack([depth, 2 * depth]), level=3)
    back, level = priors.read_depth(run, 2)
    np.testing.assert_array_equal(back, depth)
    assert level == 1
    planes, level = priors.read_hypotheses(run, 2, "planes")
    np.testing.assert_array_equal(planes[1], 2 * depth)
    assert level == 3
    assert priors.read_hypotheses(run, 2, "consistent") is None


# -- blocks ----------------------------------------------------------------------------------------------------------


def partition_of(ids: list[str]) -> Partition:
    blocks = [
        Block(
            block_id,
            BrickBox((i, -1, 0), (i + 1, 2, 3)),
            halo_bricks=1,
            photo_index=np.arange(i + 1),
            photo_weight=np.linspace(0.5, 1.0, i + 1),
            cost=1.5 * i,
            memory_bytes=123 * i,
            notes={"photos": i},
        )
        for i, block_id in enumerate(ids)
    ]
    lattice = Lattice((-1.0, 0.25, 3.0), 0.01, 32)
    return Partition(lattice, blocks, np.array([-1.0, 0.0, 0.0]), np.array([1.0, 2.0, 3.0]))


def test_partition_keeps_order_boxes_and_photos(run: Run, reopened):
    partition = partition_of(["b2_0_0", "b0_0_0", "b1_0_0"])
    write_partition(run, partition)
    back = read_partition(reopened("partition"))
    assert back.lattice == partition.lattice
    assert [b.id for b in back.blocks] == ["b2_0_0", "b0_0_0", "b1_0_0"]
    for ours, theirs in zip(partition.blocks, back.blocks, strict=True):
        assert_same(ours, theirs)
    np.testing.assert_array_equal(back.region_high_world, partition.region_high_world)
    assert back.block("b1_0_0").outer == BrickBox((1, -2, -1), (4, 3, 4))
    lattice, alone = read_block(reopened("partition"), "b1_0_0")
    assert lattice == partition.lattice
    assert_same(partition.block("b1_0_0"), alone)
    assert read_total_cost(reopened("partition")) == sum(block.cost for block in partition.blocks)


def test_a_second_partition_leaves_no_block_of_the_first(run: Run):
    write_partition(run, partition_of(["b0", "b1", "b2"]))
    write_partition(run, partition_of(["c0"]))
    assert sorted(run.scene["blocks"].group_keys()) == ["c0"]


def test_sdf_bricks_are_kept_to_half_precision(run: Run):
    rng = np.random.default_rng(4)
    write_partition(run, partition_of(["b0"]))
    bricks = rng.integers(-3, 3, (6, 3))
    sdf = rng.uniform(-SDF_CLIP_VOXELS, SDF_CLIP_VOXELS, (6, 5, 5, 5)).astype(np.float32)
    write_sdf_bricks(run, "b0", SdfBricks(bricks, sdf))
    again = Run.open(run.path)
    np.testing.assert_array_equal(read_brick_index(again, "b0"), bricks)
    for i in range(6):
        back = read_sdf_brick(again, "b0", i)
        assert back.dtype == np.float32
        np.testing.assert_allclose(back, sdf[i], atol=SDF_CLIP_VOXELS * 2**-11)


def test_a_block_without_surface_has_no_bricks(run: Run):
    write_sdf_bricks(run, "b0", SdfBricks(np.zeros((0, 3), np.int64), np.zeros((0, 5, 5, 5), np.float32)))
    assert read_brick_index(run, "b0").shape == (0, 3)


def test_hidden_photos_have_seen_nothing():
    posed = posed_points(ring_of_cameras(6, 4.0, 0.5), sphere_points(80), faces_camera)
    hidden = posed_images.without_photos(posed, np.array([1, 4]))
    assert len(hidden) == 6
    assert not np.isin(hidden.track_photo, [1, 4]).any()
    assert hidden.track_lengths.min() >= 2
    left = np.bincount(posed.track_point[~np.isin(posed.track_photo, [1, 4])], minlength=len(posed.points_world))
    np.testing.assert_array_equal(hidden.points_world, posed.points_world[left >= 2])
    np.testing.assert_array_equal(hidden.track_lengths, left[left >= 2])
    for k in (0, 17, len(hidden.points_world) - 1):
        mine = hidden.track_point == k
        whole = (posed.track_point == np.flatnonzero(left >= 2)[k]) & ~np.isin(posed.track_photo, [1, 4])
        np.testing.assert_array_equal(hidden.track_xy[mine], posed.track_xy[whole])
    assert posed_images.without_photos(posed, np.zeros(0, np.int64)) is posed


def test_levels_below_the_last_one_in_the_store_are_made_of_it(run: Run) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (151, 200, 3)).astype(np.uint8)
    levels = build_pyramid(rgb, posed_images.PYRAMID_LEVELS + 2)
    posed_images.write_photo(run, 0, levels[: posed_images.PYRAMID_LEVELS], np.full((151, 200), 255, np.uint8))
    for level, small in enumerate(levels):
        np.testing.assert_array_equal(posed_images.read_photo(run, 0, level), small)
