"""A block whose surface is known: a model whose SDF is that of a ball, without training."""

from __future__ import annotations

import numpy as np
import torch

from stages.train.compose import build_model
from stages.train.config import CacheConfig, HashEncoding, NeusRenderer, TrainConfig
from stages.train.model import BlockModel
from stages.train.photos import BlockFrame
from stages.train.volume import Volume

SHARP = 800.0
CONFIG = TrainConfig(
    encoding=HashEncoding(levels=2, finest=32, log2_table=10),
    cache=CacheConfig(resolution=96),
    renderer=NeusRenderer(sharpness=SHARP),
)


def ball_model(frame: BlockFrame, centre_world: np.ndarray, radius_m: float) -> tuple[BlockModel, Volume]:
    """The model and its cached volume: the network adds nothing to the volume it starts from."""
    torch.manual_seed(0)
    cache = Volume.over(torch.tensor(frame.half, dtype=torch.float32), CONFIG.cache.resolution)
    centre = torch.tensor(frame.to_local(centre_world), dtype=torch.float32)
    distance = (cache.positions() - centre).norm(dim=1) - radius_m / frame.radius_m
    cache.values.copy_(distance.view(cache.values.shape))
    model = build_model(CONFIG, Volume(cache.values.clone(), cache.low, float(cache.spacing)), 3)
    torch.nn.init.zeros_(model.surface.network.last.weight)
    torch.nn.init.zeros_(model.surface.network.last.bias)
    return model.eval().requires_grad_(False), cache
