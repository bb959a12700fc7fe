"""A corner with bare walls: photos know a small patch of its floor, a depth sensor knows the walls too."""

from __future__ import annotations

import numpy as np
import open3d as o3d
import pytest
import trimesh

from quoin.fields.encoding.hash_grid import HashEncodingConfig
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import look_at, pixel_grid, rays_world
from quoin.pipeline.scene import posed_images, priors, sensor_depth
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.stage import FUSE
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.partition.stage import PARTITION, ObservationTable, find_region
from quoin.stages.pose.frame.sensor_scale import find_sensor_points
from quoin.stages.priors import estimation
from quoin.stages.priors.config import PriorsConfig
from quoin.stages.priors.stage import PRIORS
from quoin.stages.train import trainer
from quoin.stages.train.block_training import train_block
from quoin.stages.train.config import SdfCacheConfig, TrainConfig
from tests.fixtures.synthetic import commit, posed_points, pyramid

WIDTH, HEIGHT, N, SIDE_M = 96, 72, 9, 2.0
WORLD_PER_M = 2.5  # the poses came without metres
TRAIN = TrainConfig(
    steps=8,
    rays=128,
    points=128,
    patches=48,
    sampler=GuidedSamplerConfig(samples=12),
    sdf_cache=SdfCacheConfig(resolution=48),
    encoding=HashEncodingConfig(levels=4, max_resolution=64, log2_table=12),
)


def corner() -> trimesh.Trimesh:
    """Floor and two walls, SIDE_M long, in metres."""
    slabs = [
        trimesh.creation.box(bounds=[[0, 0, -0.1], [SIDE_M, SIDE_M, 0]]),
        trimesh.creation.box(bounds=[[-0.1, 0, 0], [0, SIDE_M, SIDE_M]]),
        trimesh.creation.box(bounds=[[0, -0.1, 0], [SIDE_M, 0, SIDE_M]]),
    ]
    return trimesh.util.concatenate(slabs)


def raycast(mesh: trimesh.Trimesh, posed: posed_images.Posed, index: int) -> np.ndarray:
    """Depth in the mesh's unit; 0 beside it."""
    rays = o3d.t.geometry.RaycastingScene()
    rays.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    origin, directions = rays_world(posed.cam_from_world[index], posed.intrinsics[index], pixel_grid(WIDTH, HEIGHT))
    both = np.column_stack([np.broadcast_to(origin, directions.shape), directions]).astype(np.float32)
    hit = rays.cast_rays(both)["t_hit"].numpy()
    depth = np.where(np.isfinite(hit), hit, 0.0) * (directions @ posed.cam_from_world[index, 2, :3])
    return depth.reshape(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Run:
    """Posed photos that show texture on the patch only, and their sensor's depth with noise; one photo has none."""
    folder = tmp_path_factory.mktemp("room")
    rng = np.random.default_rng(0)
    mesh = corner()
    mesh.apply_scale(WORLD_PER_M)
    angles = np.radians(np.linspace(10, 80, N))
    centers = np.stack([2.6 * np.cos(angles), 2.6 * np.sin(angles), 1.0 + 0.4 * (np.arange(N) % 3)], axis=1)
    poses = np.stack([look_at(c * WORLD_PER_M, np.full(3, 0.6 * WORLD_PER_M)) for c in centers])
    patch = np.column_stack([rng.uniform(0.7, 1.1, (150, 2)), np.zeros(150)]) * WORLD_PER_M
    posed = posed_points(
        poses, patch, lambda center, points: points[:, 2] < center[2], size=(WIDTH, HEIGHT), focal_px=80
    )
    run = Run.create(folder / "run", photos=folder, settings={}, seed=0)
    for k in range(N):
        depth_m = raycast(mesh, posed, k) / WORLD_PER_M
        rgb = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
        posed_images.write_photo(run, k, pyramid(rgb), np.full((HEIGHT, WIDTH), 255, np.uint8))
        noise = rng.normal(size=depth_m.shape) * sensor_depth.SIGMA_PER_M * depth_m**2
        noisy = np.where(depth_m > 0, depth_m + noise, 0.0)
        if k == 3:
            noisy[20:40, 30:60] *= 0.6  # a thing that was there for one photo only
        if k != 7:
            sensor_depth.write_sensor_depth(run, k, noisy, 0)
    posed_images.write_posed(run, posed)
    sensor_depth.write_sensor_scale(run, sensor_depth.SensorScale(WORLD_PER_M, "test"))
    points = find_sensor_points(run, posed)
    assert points is not None
    sensor_depth.write_sensor_points(run, points)
    commit(run, "pose")
    return run


def seen_walls(run: Run) -> np.ndarray:
    """Points on floor and walls that some photo sees, world units, from depths without noise."""
    mesh = corner()
    mesh.apply_scale(WORLD_PER_M)
    posed = posed_images.read_posed(run)
    out = []
    for k in range(N):
        depth = raycast(mesh, posed, k).ravel()
        pixels = pixel_grid(WIDTH, HEIGHT)
        ahead = (pixels - posed.intrinsics[k, 2:]) / posed.intrinsics[k, :2]
        camera = (np.column_stack([ahead, np.ones(len(ahead))]) * depth[:, None])[depth > 0][::7]
        out.append((camera - posed.cam_from_world[k, :, 3]) @ posed.cam_from_world[k, :, :3])
    points = np.concatenate(out)
    return points[(points < 0.9 * SIDE_M * WORLD_PER_M).all(axis=1)]


def test_points_of_the_sensor_follow_those_of_sfm_and_held_out_photos_measured_none(room):
    posed = posed_images.read_posed(room)
    both = sensor_depth.add_sensor_points(room, posed, np.zeros(0, int))
    assert len(both.points_world) > 3 * len(posed.points_world)
    np.testing.assert_array_equal(both.points_world[: len(posed.points_world)], posed.points_world)
    off = np.abs(both.points_world[len(posed.points_world) :]).min(axis=1)
    assert np.median(off) < 0.02
    assert both.track_lengths.min() >= 2
    assert len(both.track_photo) == both.track_offsets[-1]
    fewer = sensor_depth.add_sensor_points(room, posed, np.array([2, 4]))
    assert len(fewer.points_world) < len(both.points_world)
    assert not np.isin(fewer.track_photo, [2, 4]).any()


@pytest.mark.slow
def test_bare_walls_get_a_surface(room, monkeypatch):
    monkeypatch.setattr(trainer, "compile_function", lambda function, device: function)
    quiet = Reporter()
    PARTITION(room, PartitionConfig(resolution=56, brick_size=16), quiet)
    walls = seen_walls(room)
    region = read_partition(room)
    inside = np.all((walls > region.region_low_world) & (walls < region.region_high_world), axis=1)
    assert inside.mean() > 0.9

    monkeypatch.setattr(
        estimation, "label_sky", lambda run, report: priors.write_labels(run, 0, np.full((9, 12), 1, np.uint8), 3)
    )
    result = PRIORS(room, PriorsConfig(stereo_edge_px=0), quiet)
    assert (result.n_depth_maps, result.n_sensor_maps) == (N - 1, N - 1)
    assert priors.read_depth(room, 7) is None
    assert priors.read_depth_sigma(room, 0) == pytest.approx(sensor_depth.SIGMA_PER_M / WORLD_PER_M)
    depth = priors.read_depth(room, 0)
    assert depth is not None
    assert (depth[0] > 0).mean() > 0.5, "what is measured is no sky"
    lone = priors.read_depth(room, 3)
    assert lone is not None
    assert (lone[0][20:40, 30:60] > 0).mean() < 0.1, "others see through what one photo measured alone"
    assert (lone[0][50:, 30:60] > 0).mean() > 0.7

    [block] = region.blocks
    room.commit(f"train/{block.id}", "key", train_block(room, TRAIN, quiet, block.id, "cpu"), 1.0)
    commit(room, "train")
    FUSE(room, FuseConfig(island_diameter=0.0), quiet)
    mesh = trimesh.load(room.path / "mesh.ply", process=False)
    surface = o3d.t.geometry.RaycastingScene()
    surface.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    far = surface.compute_distance(walls[inside].astype(np.float32)).numpy() / WORLD_PER_M
    assert (far < 0.05).mean() > 0.9
    on_mesh = np.abs(mesh.vertices).min(axis=1) / WORLD_PER_M
    assert (on_mesh < 0.05).mean() > 0.9


def test_photos_alone_know_the_patch_only(room):
    posed = posed_images.read_posed(room)
    observation_table = ObservationTable.from_posed(posed)
    _, low, high = find_region(observation_table, PartitionConfig(), 0)
    walls = seen_walls(room)
    assert np.all((walls > low) & (walls < high), axis=1).mean() < 0.3
