"""Configuration and results of the train stage."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import StageConfig, StageResult

VERSION = 1


class TrainConfig(StageConfig):
    """How one block's surface is trained. Lengths without a unit are in the block's: half its longest side."""

    steps: int = Field(2000, ge=1)  # optimiser steps per block
    rays: int = Field(1024, ge=64)  # rays per step
    samples: int = Field(16, ge=4)  # network samples per ray inside the block
    outside_samples: int = Field(6, ge=2)  # samples per ray behind the block
    points: int = Field(2048, ge=16)  # SfM points, free-space points and uniform points per step (each)
    patches: int = Field(512, ge=16)  # rays of a step whose patches are compared between photos
    volume_resolution: int = Field(256, ge=32, le=512)  # cells of the cached SDF volume along the longest side
    refresh_every: int = Field(1000, ge=10)  # steps between full refreshes of the cached volume
    levels: int = Field(10, ge=1, le=16)  # hash grid levels
    coarsest: int = Field(16, ge=2)  # cells along the block at the coarsest level
    finest: int = Field(512, ge=2)  # and at the finest
    log2_table: int = Field(18, ge=10, le=24)  # log2 of entries per hash level
    sharpness: float = Field(60.0, gt=0)  # initial 1/s of the logistic
    grid_rate: float = Field(2e-3, gt=0)  # Adam learning rate of the hash grids
    surface_rate: float = Field(5e-4, gt=0)  # of the surface network: low, for the seed is good and must not be shaken
    colour_rate: float = Field(3e-3, gt=0)  # of everything else
    warmup: float = Field(0.12, ge=0, lt=1)  # share of the steps before patches are compared
    coarse_to_fine: float = Field(0.35, gt=0, le=1)  # share of the steps until all hash levels are active
    colour_weight: float = Field(2.0, ge=0)
    eikonal_weight: float = Field(0.1, ge=0)
    points_weight: float = Field(1.0, ge=0)
    free_weight: float = Field(2.0, ge=0)
    patch_weight: float = Field(0.15, ge=0)
    opacity_weight: float = Field(0.0, ge=0)  # entropy of the rays' opacity: no fog
    sparse_late: float = Field(0.3, ge=0, le=1)  # factor on points and free space in the second half
    held_out_share: float = Field(0.02, ge=0, le=0.5)  # share of the photos' tiles that is never trained on
    measure_every: int = Field(250, ge=1)  # steps between held-out measurements
    checkpoint_minutes: float = Field(2.0, gt=0)  # between checkpoints


class BlockResult(StageResult):
    """What training one block left."""

    block: str
    steps: int
    seconds: float
    heldout_psnr_db: float | None  # None where no pixel was held out
    rays_per_s: float
    n_bricks: int
    peak_memory_bytes: int
    device: str


class TrainResult(StageResult):
    """All blocks."""

    blocks: list[BlockResult]
