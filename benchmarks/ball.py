"""A trainer of the default method on a ball of noise, made in seconds without a run: for speed, not for quality."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from quoin.fields.model import build_model
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
from quoin.pipeline.geometry.cameras import centers_world, look_at
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.photo_set import TILE_SIZE_PX, PhotoSet
from quoin.stages.train.data.supervision import SfmSupervision, free_space_rays
from quoin.stages.train.step import BlockData
from quoin.stages.train.trainer import Trainer

BALL_RADIUS = 0.6
HALF_EXTENT = np.ones(3)
N_BALL_PHOTOS, N_BALL_SOURCES, N_BALL_POINTS = 40, 8, 200_000
START_STEP_SHARE = 0.4  # of the steps: all levels of the grid are active, all loss terms count


class BallData(NamedTuple):
    """What every trainer starts from; nothing in it is trained."""

    photos: PhotoSet
    supervision: SfmSupervision


def make_ball(width: int, height: int) -> BallData:
    """40 photos of ``width`` × ``height`` pixels from a ring around the ball, and points all over it."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(N_BALL_PHOTOS) / N_BALL_PHOTOS
    centers = np.stack([3.0 * np.cos(angle), 3.0 * np.sin(angle), 0.5 + 0.5 * (np.arange(N_BALL_PHOTOS) % 3)], axis=1)
    cameras = np.stack([look_at(center, np.zeros(3)) for center in centers])
    intrinsics = np.tile([1.5 * width, 1.5 * width, width / 2, height / 2], (N_BALL_PHOTOS, 1))
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    near = np.arange(1, N_BALL_SOURCES // 2 + 1)
    sources = (np.arange(N_BALL_PHOTOS)[:, None] + np.concatenate([-near, near])) % N_BALL_PHOTOS
    photos = PhotoSet(
        [np.roll(noise, 7 * k, axis=1) for k in range(N_BALL_PHOTOS)],
        [np.full((height, width), 255, np.uint8)] * N_BALL_PHOTOS,
        cameras,
        intrinsics,
        [np.ones((-(-height // TILE_SIZE_PX), -(-width // TILE_SIZE_PX)))] * N_BALL_PHOTOS,
        sources,
        held_out_share=0.0,
        seed=0,
    )
    points = rng.normal(size=(N_BALL_POINTS, 3))
    points *= BALL_RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
    seen_by = np.argmax(points @ centers_world(cameras).T, axis=1)
    supervision = free_space_rays(centers_world(cameras), points, seen_by, np.arange(N_BALL_POINTS), HALF_EXTENT)
    points_on_ball = {
        "points": points,
        "weight": np.ones(N_BALL_POINTS),
        "sfm": np.ones(N_BALL_POINTS),
        "normal": np.zeros((N_BALL_POINTS, 3)),
    }
    supervision |= points_on_ball
    return BallData(photos, SfmSupervision(**{k: torch.tensor(v, dtype=torch.float32) for k, v in supervision.items()}))


def make_trainer(ball: BallData, config: TrainConfig, device: str) -> Trainer:
    """A trainer in the middle of its work, its seed the ball itself."""
    torch.manual_seed(0)
    half_extent = torch.tensor(HALF_EXTENT, dtype=torch.float32)
    cache = DenseSdf.over_box(half_extent, config.sdf_cache.resolution)
    cache.values.copy_((cache.positions().norm(dim=1) - BALL_RADIUS).view_as(cache.values))
    initial_sdf = SparseSdf.over_box(half_extent, config.sdf_cache.resolution // 2)  # with bricks as training has them
    initial_sdf.values.copy_(initial_sdf.positions().norm(dim=1) - BALL_RADIUS)
    corners = initial_sdf.values.view(*initial_sdf.shape.tolist())[:-1, :-1, :-1].reshape(-1)
    initial_sdf.refine(corners.abs() < 2 * initial_sdf.coarse_spacing)
    model = build_model(config, initial_sdf, N_BALL_PHOTOS)
    data = BlockData(ball.photos, ball.supervision, cache, half_extent)
    trainer = Trainer(model, data, config, device, seed=0)
    trainer.step = int(START_STEP_SHARE * config.steps)
    return trainer
