"""A tiny analytic scene for the train tests: a textured ball on a textured floor, photographed by a ring of cameras."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import look_at, pixel_grid, project, rays_world
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import (
    Block,
    Partition,
    read_brick_index,
    read_partition,
    read_sdf_brick,
    write_partition,
)
from quoin.pipeline.storage.run import Run
from quoin.stages.train.config import GuidedSamplerConfig, HashEncodingConfig, SdfCacheConfig, TrainConfig
from quoin.stages.train.data.load import build_trainer
from quoin.stages.train.data.photo_set import BlockFrame
from quoin.stages.train.trainer import Trainer
from tests import synthetic

BALL_CENTRE, BALL_RADIUS = np.array([0.0, 0.0, 0.6]), 0.6
FLOOR_EXTENT = 1.2

TINY = TrainConfig(  # what trains the scene in seconds, to a surface that two runs can be compared by
    steps=60,
    rays=256,
    points=128,
    patches=64,
    sampler=GuidedSamplerConfig(samples=8),
    cache=SdfCacheConfig(resolution=32),
    encoding=HashEncodingConfig(levels=4, finest=48, log2_table=10),
    preview_minutes=0,
)


def sdf_world(points: np.ndarray) -> np.ndarray:
    """True signed distance of the scene (ball and floor z = 0)."""
    return np.minimum(np.linalg.norm(points - BALL_CENTRE, axis=-1) - BALL_RADIUS, points[..., 2])


def texture(points: np.ndarray) -> np.ndarray:
    """Colour in [0, 1] from position: sums of sines at several scales."""
    rng = np.random.default_rng(5)
    value = np.zeros((*points.shape[:-1], 3))
    for scale in (4.0, 9.0, 20.0, 34.0):
        for _ in range(3):
            value += np.sin(points @ rng.normal(0, scale, (3, 3)) + rng.uniform(0, 6, 3))
    return 0.5 + 0.5 * np.tanh(value / 3.0)


def cast(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distance to the first surface (inf where none) for unit directions [n, 3]."""
    oc = origin - BALL_CENTRE
    b = directions @ oc
    disc = b * b - (oc @ oc - BALL_RADIUS**2)
    ball = np.where(disc > 0, -b - np.sqrt(np.maximum(disc, 0)), np.inf)
    ball = np.where(ball > 0, ball, np.inf)
    floor = np.where(directions[:, 2] < -1e-6, -origin[2] / np.minimum(directions[:, 2], -1e-6), np.inf)
    hit = origin + directions * np.where(np.isfinite(floor), floor, 0)[:, None]
    floor = np.where(np.abs(hit[:, :2]).max(axis=1) < FLOOR_EXTENT, floor, np.inf)
    return np.minimum(ball, floor)


def make_run(
    folder: Path,
    n_photos: int = 12,
    width: int = 160,
    height: int = 120,
    seed: int = 0,
    n_points: int = 600,
    place: str | None = None,
) -> Run:
    """A run in ``folder`` (or at ``place``) with ingest, pose and partition committed, one block over all of it."""
    rng = np.random.default_rng(seed)
    run = Run.create(place or folder / "run", photos=folder, settings={}, seed=seed)
    focal = 0.9 * width
    poses, intrinsics = [], np.tile([focal, focal, width / 2, height / 2], (n_photos, 1))
    for k in range(n_photos):
        angle = 2 * np.pi * k / n_photos
        center = np.array([3.0 * np.cos(angle), 3.0 * np.sin(angle), 1.2 + 0.8 * (k % 3)])
        poses.append(look_at(center, np.array([0.0, 0.0, 0.4])))
    cam_from_world = np.stack(poses)
    for k in range(n_photos):
        origin, directions = rays_world(cam_from_world[k], intrinsics[k], pixel_grid(width, height))
        distance = cast(origin, directions)
        hit = np.isfinite(distance)
        rgb = np.where(
            hit[:, None], texture(origin + directions * np.where(hit, distance, 0)[:, None]), [0.6, 0.75, 0.9]
        )
        rgb = np.clip(rgb * (0.8 + 0.3 * rng.random()), 0, 1)
        image = np.round(rgb * 255).astype(np.uint8).reshape(height, width, 3)
        posed_images.write_photo(run, k, synthetic.pyramid(image), np.full((height, width), 255, np.uint8))
    ball = rng.normal(size=(n_points, 3))
    ball = BALL_CENTRE + BALL_RADIUS * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    floor = np.concatenate([rng.uniform(-FLOOR_EXTENT, FLOOR_EXTENT, (n_points, 2)), np.zeros((n_points, 1))], axis=1)
    tracks, points = [], []
    for point in np.concatenate([ball, floor]):
        seen = []
        for k in range(n_photos):
            xy, depth = project(cam_from_world[k], intrinsics[k], point[None])
            center, direction = rays_world(cam_from_world[k], intrinsics[k], xy)
            free = cast(center, direction)[0] > np.linalg.norm(point - center) - 1e-6
            if depth[0] > 0 and (xy[0] > 0).all() and xy[0, 0] < width and xy[0, 1] < height and free:
                seen.append((k, xy[0]))
        if len(seen) >= 2:
            points.append(point)
            tracks.append(seen)
    posed = posed_images.Posed(
        names=[f"{k}.jpg" for k in range(n_photos)],
        photo_ids=np.arange(n_photos),
        cam_from_world=cam_from_world,
        intrinsics=intrinsics,
        sizes=np.tile([width, height], (n_photos, 1)),
        points_world=np.array(points),
        point_errors_px=np.full(len(points), 0.5),
        point_colors=np.full((len(points), 3), 128, np.uint8),
        track_offsets=np.concatenate([[0], np.cumsum([len(t) for t in tracks])]),
        track_photo=np.array([k for t in tracks for k, _ in t]),
        track_xy=np.array([xy for t in tracks for _, xy in t]),
    )
    posed_images.write_posed(run, posed)
    run.commit("pose", "pose-key", StageResult(), 0.0)
    voxel = 0.05
    lattice = Lattice((-1.6, -1.6, -0.4), voxel, 32)
    block = Block("b000", BrickBox((0, 0, 0), (2, 2, 1)), 0, np.arange(n_photos), np.ones(n_photos))
    low, high = lattice.box_world(block.core)
    write_partition(run, Partition(lattice, [block], low, high))
    run.commit("partition", "partition-key", StageResult(), 0.0)
    return run


def start(run: Run, config: TrainConfig, report: Reporter | None = None, **changes: Any) -> tuple[Trainer, BlockFrame]:
    """A trainer of the run's first block, with ``changes`` to the block, and the block's frame."""
    partition = read_partition(run)
    block = partition.blocks[0]
    whole = {"photo_level": np.zeros(len(changes.get("photo_index", block.photo_index)), np.int64)}
    block = dataclasses.replace(block, **{**whole, **changes})
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(block.outer))
    return build_trainer(run, config, block, frame, "cpu", report or Reporter()), frame


def surface(run: Run) -> dict[tuple[int, ...], np.ndarray]:
    """The SDF bricks that training the block left, by their place."""
    index = read_brick_index(run, "b000")
    return {tuple(brick): read_sdf_brick(run, "b000", row) for row, brick in enumerate(index.tolist())}
