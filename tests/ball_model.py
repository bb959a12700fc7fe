"""A block whose surface is known: a model whose SDF is that of a ball, without training."""

from __future__ import annotations

import numpy as np
import torch

from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.grids.sparse_sdf import SparseSdf
from quoin.fields.model import BlockModel
from quoin.stages.train.build import build_model
from quoin.stages.train.config import HashEncodingConfig, NeusRendererConfig, SdfCacheConfig, TrainConfig
from quoin.stages.train.data.photo_set import BlockFrame

SHARP = 800.0
CONFIG = TrainConfig(
    encoding=HashEncodingConfig(levels=2, finest=32, log2_table=10),
    cache=SdfCacheConfig(resolution=96),
    renderer=NeusRendererConfig(sharpness=SHARP),
)


def ball_model(frame: BlockFrame, center_world: np.ndarray, radius_m: float) -> tuple[BlockModel, DenseSdf]:
    """The model and its cached volume: the network adds nothing to the volume it starts from."""
    torch.manual_seed(0)
    half_extent = torch.tensor(frame.half_extent, dtype=torch.float32)
    center = torch.tensor(frame.to_local(center_world), dtype=torch.float32)

    def distance(points: torch.Tensor) -> torch.Tensor:
        return (points - center).norm(dim=1) - radius_m / frame.radius_m

    cache, base = (
        DenseSdf.over_box(half_extent, CONFIG.cache.resolution),
        SparseSdf.over_box(half_extent, CONFIG.cache.resolution // 2),
    )
    cache.refresh(distance)
    base.values.copy_(distance(base.positions()))
    near = base.values.view(*base.shape.tolist())[:-1, :-1, :-1].abs() < 3.0 * base.coarse_spacing
    base.refine(near.reshape(-1))
    base.values.copy_(distance(base.positions()))
    model = build_model(CONFIG, base, 3)
    torch.nn.init.zeros_(model.surface.network.last.weight)
    torch.nn.init.zeros_(model.surface.network.last.bias)
    return model.eval().requires_grad_(False), cache
