"""A trainer of the default method on a ball of noise, made in seconds without a run: for speed, not for quality."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from quoin.fields.grids.dense_sdf import Volume
from quoin.pipeline.geometry.cameras import centers_world, look_at
from quoin.stages.train.build import build_model
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.photo_set import TILE, PhotoSet
from quoin.stages.train.data.sfm_supervision import Evidence, lines_of_sight
from quoin.stages.train.trainer import Trainer

RADIUS = 0.6
HALF = np.ones(3)
N_PHOTOS, N_SOURCES, N_POINTS = 40, 8, 200_000
LATE = 0.4  # of the steps: all levels of the grid are active, all loss terms count


class Ball(NamedTuple):
    """What every trainer starts from; nothing in it is trained."""

    photos: PhotoSet
    evidence: Evidence


def make_ball(width: int, height: int) -> Ball:
    """40 photos of ``width`` × ``height`` pixels from a ring around the ball, and points all over it."""
    rng = np.random.default_rng(0)
    turn = 2 * np.pi * np.arange(N_PHOTOS) / N_PHOTOS
    centres = np.stack([3.0 * np.cos(turn), 3.0 * np.sin(turn), 0.5 + 0.5 * (np.arange(N_PHOTOS) % 3)], axis=1)
    cameras = np.stack([look_at(centre, np.zeros(3)) for centre in centres])
    intrinsics = np.tile([1.5 * width, 1.5 * width, width / 2, height / 2], (N_PHOTOS, 1))
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    near = np.arange(1, N_SOURCES // 2 + 1)
    sources = (np.arange(N_PHOTOS)[:, None] + np.concatenate([-near, near])) % N_PHOTOS
    photos = PhotoSet(
        [np.roll(noise, 7 * k, axis=1) for k in range(N_PHOTOS)],
        [np.full((height, width), 255, np.uint8)] * N_PHOTOS,
        cameras,
        intrinsics,
        [np.ones((-(-height // TILE), -(-width // TILE)))] * N_PHOTOS,
        sources,
        held_out_share=0.0,
        seed=0,
    )
    points = rng.normal(size=(N_POINTS, 3))
    points *= RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
    seen_by = np.argmax(points @ centers_world(cameras).T, axis=1)
    known = lines_of_sight(centers_world(cameras), points, seen_by, np.arange(N_POINTS), HALF)
    more = {"points": points, "weight": np.ones(N_POINTS), "sfm": np.ones(N_POINTS), "normal": np.zeros((N_POINTS, 3))}
    known |= more
    return Ball(photos, Evidence(**{k: torch.tensor(v, dtype=torch.float32) for k, v in known.items()}))


def make_trainer(ball: Ball, config: TrainConfig, device: str) -> Trainer:
    """A trainer in the middle of its work, its seed the ball itself."""
    torch.manual_seed(0)
    half = torch.tensor(HALF, dtype=torch.float32)
    cache = Volume.over(half, config.cache.resolution)
    cache.values.copy_((cache.positions().norm(dim=1) - RADIUS).view_as(cache.values))
    seed = Volume(cache.values.clone(), cache.low, float(cache.spacing))
    model = build_model(config, seed, N_PHOTOS)
    trainer = Trainer(model, ball.photos, ball.evidence, cache, half, config, device, seed=0)
    trainer.step = int(LATE * config.steps)
    return trainer
