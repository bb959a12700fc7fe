"""Configuration and results of the train stage. A method is five parts: encoding, field, renderer, sampler, losses.

The configuration of a part stands beside it in ``fields``. The defaults are the method ``quoin``; configs/methods/ has
it and published ones. Lengths without a unit are in the block's own: half its longest side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, model_validator

from quoin.fields.losses import LossWeightsConfig
from quoin.fields.model import ModelConfig
from quoin.pipeline.core.config import StageConfig, StageResult


class SdfCacheConfig(StageConfig):
    """The SDF cache: a dense volume of the last SDF values, which guides samples."""

    resolution: int = Field(256, ge=32, le=512)
    """Cells along the longest side of the block."""
    refresh_every: int = Field(1000, ge=10)
    """Steps between refreshes near the surface."""


class LearningRateConfig(StageConfig):
    """Learning rates of Adam."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"colour": "other", "final": "final_factor"}
    grid: float = Field(2e-3, gt=0)
    """Learning rate of feature grids."""
    surface: float = Field(4e-4, gt=0)
    """Learning rate of the surface network: low, as the initial SDF is good already."""
    other: float = Field(3e-3, gt=0)
    """Learning rate of everything else."""
    final_factor: float = Field(0.05, gt=0, le=1)
    """Factor on all learning rates at the end of the cosine schedule."""
    cameras: float = Field(0.0, ge=0)
    """Learning rate of poses and focal lengths, pixels a step, for example 0.05; 0 keeps them as given."""


class TrainConfig(ModelConfig):
    """How one block's surface is trained."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {
        **ModelConfig.RENAMED_KEYS,
        "cache": "sdf_cache",
        "rates": "lr",
        "settle": "convergence",
    }
    method: str = "quoin"
    """Method: a name in configs/methods/, or the path of such a YAML file."""
    steps: int = Field(2000, ge=1)
    """Optimizer steps of each block, at most."""
    budget_minutes: float | None = Field(None, gt=0)
    """Time for training all blocks, one after the other, minutes; None: no limit."""
    rays: int = Field(1024, ge=64)
    """Rays of a step."""
    points: int = Field(2048, ge=16)
    """Surface points, free-space points and uniform points of a step (each)."""
    patches: int = Field(512, ge=16)
    """Rays of a step whose patches are compared between photos."""
    sdf_cache: SdfCacheConfig = SdfCacheConfig()
    """The cached volume of SDF values that guides samples."""
    losses: LossWeightsConfig = LossWeightsConfig()
    """Weights of the losses."""
    lr: LearningRateConfig = LearningRateConfig()
    """Learning rates."""
    held_out_share: float = Field(0.02, ge=0, le=0.5)
    """Share of the photos' tiles that is never trained on, to measure on."""
    measure_every: int = Field(250, ge=1)
    """Steps between measurements on held-out tiles."""
    checkpoint_minutes: float = Field(2.0, gt=0)
    """Minutes between checkpoints."""
    preview_minutes: float = Field(3.0, ge=0)
    """Minutes between previews, and one at the end; 0: none."""
    convergence: float = Field(0.0, ge=0)
    """Drift of the surface in voxels, in a fortieth of the training, below which the rest is cut short; 0: never."""

    @model_validator(mode="after")
    def check_losses(self) -> TrainConfig:
        """Raise QuoinError where a loss does not go with the other parts."""
        self.refuse(
            self.renderer.needs_surface and self.losses.photoconsistency > 0,
            "Patches are compared where a ray enters a volume, which surface rendering does not have",
            "set losses.photoconsistency to 0",
        )
        self.refuse(
            self.lr.cameras > 0 and self.losses.photoconsistency == 0,
            "Cameras are refined by comparing patches between photos",
            "set losses.photoconsistency above 0, or lr.cameras to 0",
        )
        self.refuse(
            self.losses.curvature > 0 and self.surface.gradient != "numerical",
            "Curvature needs a numerical gradient",
            "set surface.gradient to numerical, or losses.curvature to 0",
        )
        return self


class BlockResult(StageResult):
    """The result of training one block."""

    block: str
    steps: int
    seconds: float
    heldout_psnr_db: float | None  # None where no pixel was held out
    rays_per_s: float | None  # None after too few steps to measure
    n_bricks: int
    peak_memory_bytes: int  # of the process on a CPU, on the device on a GPU
    device: str
    compiled: bool | None = None  # whether the steps ran as compiled code; None in runs of earlier versions
    rays: int = 0  # per step at the end; fewer than configured where memory did not suffice
    memory_level: int = 0  # how often training was started again with photos of half the size and half the rays
    memory_reason: str = ""  # reason of the last time


class TrainResult(StageResult):
    """The results of all blocks."""

    blocks: list[BlockResult]
    failed_blocks: dict[str, str] = Field(default_factory=dict)  # blocks that could not be trained, and why
