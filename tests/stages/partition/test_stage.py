"""The whole stage on a ball seen from rings of cameras."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.partition import block_split
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.partition.stage import PARTITION
from tests.fixtures import synthetic


def posed_ball(n_points: int = 1500, size: tuple[int, int] = (160, 120)) -> posed_images.Posed:
    rings = [synthetic.ring_of_cameras(8, 4.0, h) for h in (-2.0, 0.0, 2.0)]
    points = synthetic.sphere_points(n_points)
    return synthetic.posed_points(np.concatenate(rings), points, synthetic.faces_camera, size=size)


def make(folder: Path, posed: posed_images.Posed) -> Run:
    made = synthetic.make_run(folder, "ingest", "pose")
    posed_images.write_posed(made, posed)
    return made


@pytest.mark.parametrize("n", [1, 2, 5])
def test_blocks_cover_all_points_and_the_store_says_what_the_result_says(tmp_path: Path, n: int) -> None:
    posed = posed_ball()
    made = make(tmp_path, posed)
    result = PARTITION(made, PartitionConfig(resolution=128, brick_size=8, min_blocks=n, gsd_factor=0.1), Reporter())
    partition = read_partition(made)
    assert result.n_blocks == len(partition.blocks) == n
    assert [b.id for b in partition.blocks] == [f"b{i:03d}" for i in range(n)] == [b.id for b in result.blocks]
    brick = partition.lattice.brick_of(posed.points_world)
    owners = np.sum([b.core.contains(brick) for b in partition.blocks], axis=0)
    assert (owners == 1).all()
    assert sum(b.n_points for b in result.blocks) == len(posed.points_world)
    assert sum(b.cost for b in result.blocks) == pytest.approx(1.0)
    assert max(b.cost for b in result.blocks) < 2.2 / n
    assert result.covered_share == 1.0
    assert max(result.lattice_shape) == 128
    for b in partition.blocks:
        assert len(b.photo_index) > 4
        assert len(set(b.photo_index.tolist())) == len(b.photo_index)
        assert ((b.photo_weight > 0) & (b.photo_weight <= 1)).all()


def test_the_ground_sample_distance_is_that_of_the_cameras(tmp_path: Path) -> None:
    made = make(tmp_path, posed_ball())
    result = PARTITION(made, PartitionConfig(resolution=4000, gsd_factor=2.0), Reporter())
    assert 3.0 / 150 < result.gsd_m < 4.5 / 150  # cameras 3 to 4.5 away, focal 150 px
    assert result.voxel_size_m == pytest.approx(2 * result.gsd_m)


def test_a_block_takes_the_photos_that_face_it(tmp_path: Path) -> None:
    made = make(tmp_path, posed_ball())
    PARTITION(made, PartitionConfig(resolution=128, brick_size=8, min_blocks=8, gsd_factor=0.1), Reporter())
    partition = read_partition(made)
    posed = posed_images.read_posed(made)
    centers = -np.einsum("nji,nj->ni", posed.cam_from_world[:, :, :3], posed.cam_from_world[:, :, 3])
    for b in partition.blocks:
        middle = np.mean(partition.lattice.box_world(b.core), axis=0)
        facing = centers @ middle / np.linalg.norm(centers, axis=1) / np.linalg.norm(middle)
        chosen = np.isin(np.arange(len(posed)), b.photo_index)
        assert chosen[facing > 0.8].all()
        assert not chosen[facing < -0.8].any()


def test_the_memory_cap_is_kept_by_splitting_and_then_by_fewer_photos(tmp_path: Path) -> None:
    posed = posed_ball()
    big = dataclasses.replace(
        posed, sizes=posed.sizes * 10, intrinsics=posed.intrinsics * 10, track_xy=posed.track_xy * 10
    )
    made = make(tmp_path, big)
    whole = PARTITION(made, PartitionConfig(resolution=128, brick_size=8), Reporter())
    assert whole.n_blocks == 1
    fixed = block_split.block_memory_bytes(0, 8, 8)
    for share in (0.8, 0.2):
        cap = fixed + share * (whole.blocks[0].memory_bytes - fixed)
        made.invalidate("partition")
        result = PARTITION(made, PartitionConfig(resolution=128, brick_size=8, memory_gib=cap / (1 << 30)), Reporter())
        assert result.n_blocks > 1
        assert max(b.memory_bytes for b in result.blocks) <= cap
        assert min(b.n_photos for b in result.blocks) >= 2


def test_memory_that_no_block_can_do_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuoinError, match=r"Training a block takes 2\.\d+ GiB however small it is; 2 are allowed"):
        PARTITION(
            make(tmp_path, posed_ball()), PartitionConfig(resolution=128, brick_size=8, memory_gib=2.0), Reporter()
        )


def test_a_long_region_is_split_where_one_network_could_not_resolve_it(tmp_path: Path) -> None:
    made = make(tmp_path, posed_ball())
    result = PARTITION(
        made, PartitionConfig(resolution=256, brick_size=8, max_block_samples=128, gsd_factor=0.1), Reporter()
    )
    assert result.n_blocks == 8
    lattice = read_partition(made)
    assert all(max(b.core.shape) * 8 <= 128 for b in lattice.blocks)


def test_stray_points_and_a_lost_camera_change_little(tmp_path: Path) -> None:
    posed = posed_ball()
    clean = PARTITION(make(tmp_path / "clean", posed), PartitionConfig(resolution=128, brick_size=8), Reporter())
    rng = np.random.default_rng(0)
    n = 25
    photo = np.concatenate([rng.choice(len(posed), 3, replace=False) for _ in range(n)])
    dirty = dataclasses.replace(
        posed,
        points_world=np.concatenate([posed.points_world, rng.normal(size=(n, 3)) * 300]),
        point_errors_px=np.concatenate([posed.point_errors_px, np.full(n, 1.0)]),
        point_colors=np.concatenate([posed.point_colors, np.zeros((n, 3), np.uint8)]),
        track_offsets=np.concatenate([posed.track_offsets, posed.track_offsets[-1] + 3 * np.arange(1, n + 1)]),
        track_photo=np.concatenate([posed.track_photo, photo]),
        track_xy=np.concatenate([posed.track_xy, rng.uniform(0, 120, (3 * n, 2))]),
    )
    found = PARTITION(make(tmp_path / "dirty", dirty), PartitionConfig(resolution=128, brick_size=8), Reporter())
    np.testing.assert_allclose(found.region_low_world, clean.region_low_world, atol=0.1)
    np.testing.assert_allclose(found.region_high_world, clean.region_high_world, atol=0.1)
    assert found.voxel_size_m == pytest.approx(clean.voxel_size_m, rel=0.05)


def test_no_points_and_points_behind_the_cameras_are_one_clear_sentence(tmp_path: Path) -> None:
    posed = posed_ball(200)
    none = dataclasses.replace(
        posed,
        points_world=np.zeros((0, 3)),
        point_errors_px=np.zeros(0),
        point_colors=np.zeros((0, 3), np.uint8),
        track_offsets=np.zeros(1, np.int64),
        track_photo=np.zeros(0, np.int64),
        track_xy=np.zeros((0, 2)),
    )
    with pytest.raises(QuoinError, match="without points"):
        PARTITION(make(tmp_path / "none", none), PartitionConfig(), Reporter())
    turned = posed.cam_from_world.copy()
    turned[:, [0, 2]] *= -1  # every camera looks away
    away = dataclasses.replace(posed, cam_from_world=turned)
    with pytest.raises(QuoinError, match="in front of the cameras"):
        PARTITION(make(tmp_path / "away", away), PartitionConfig(), Reporter())


def test_a_handful_of_points_still_makes_a_block(tmp_path: Path) -> None:
    result = PARTITION(make(tmp_path, posed_ball(9)), PartitionConfig(), Reporter())
    assert result.n_blocks == 1
    assert result.blocks[0].n_photos >= 2


def test_voxels_too_small_to_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuoinError, match="too small for a region"):
        PARTITION(make(tmp_path, posed_ball(200)), PartitionConfig(voxel_size_m=1e-7), Reporter())


def test_memory_grows_with_pixels_and_bricks() -> None:
    base = block_split.block_memory_bytes(0, 0, 32)
    assert block_split.block_memory_bytes(1000, 0, 32) - base == 1000 * block_split.PIXEL_BYTES
    assert block_split.block_memory_bytes(0, 10, 32) - base == 10 * 2 * 2 * 33**3
    assert block_split.machine_memory_bytes() > 1 << 28
    assert block_split.block_vram_bytes(10**9) - block_split.block_vram_bytes(0) == 10**9 * block_split.PIXEL_BYTES
