"""Configuration and result of the partition stage."""

from __future__ import annotations

from pydantic import Field, field_validator

from quoin.pipeline.core.config import StageConfig, StageResult


class PartitionConfig(StageConfig):
    """Settings of the region, the voxel size, and the blocks."""

    resolution: int = Field(512, ge=32, le=16384)
    """Lattice samples along the region's longest side; never finer than gsd_factor allows."""
    gsd_factor: float = Field(0.75, ge=0.1, le=16)
    """Finest voxel, in pixels of the photos as they see the surface (median ground sample distance)."""
    voxel_size_m: float | None = Field(None, gt=0)
    """Voxel size, meters of the world frame, instead of resolution and gsd_factor; None derives it from these."""
    brick_size: int = Field(32, ge=8, le=128, multiple_of=4)
    """Voxels along a brick's side, a multiple of 4: surfaces are looked for that coarsely first."""
    halo_bricks: int = Field(1, ge=0, le=8)
    """Bricks around a block's core that it also trains, and that are blended with the neighbors."""
    margin: float = Field(0.08, ge=0, le=1)
    """Margin of the region around the points, share of its longest side."""
    min_track: int = Field(3, ge=2, le=20)
    """Photos that must observe a point that counts for the region."""
    min_angle_deg: float = Field(1.5, ge=0, le=60)
    """Triangulation angle of a point that counts for the region at least, degrees."""
    max_depth_factor: float = Field(8.0, ge=2, le=1000)
    """Depth of a point that counts for the region at most, times the median depth of all observations."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory of one block's training at most, GiB; None takes 60 % of the machine's."""
    max_block_samples: int = Field(1024, ge=64, le=8192)
    """Lattice samples along a block's longest side at most (a network has only so much room for detail)."""
    min_blocks: int = Field(1, ge=1, le=10_000)
    """Blocks at least."""
    max_photos: int = Field(200, ge=2, le=5000)
    """Photos a block trains with at most."""
    hold_out_every: int = Field(0, ge=0)
    """Every n-th photo, in the order of names, is held out: no later stage uses it, so that quoin evaluate --views
    can compare with it; 0 holds none out, else 2 and more."""

    @field_validator("hold_out_every")
    @classmethod
    def _leaves_some(cls, every: int) -> int:
        if every == 1:
            raise ValueError("it would hold out every photo")
        return every


class BlockPlan(StageResult):
    """The plan of one block."""

    id: str
    core_low_world: tuple[float, float, float]
    core_high_world: tuple[float, float, float]
    n_photos: int
    n_points: int  # SfM points in its core
    cost: float  # share of the whole work
    memory_bytes: int  # of training it, estimated
    n_bricks: int  # with surface, estimated, halo included
    pixels: int  # of its photos, at the levels it trains with


class PartitionResult(StageResult):
    """The lattice, the region, the blocks."""

    n_blocks: int
    voxel_size_m: float
    gsd_m: float  # median size of a pixel on the surface
    lattice_shape: tuple[int, int, int]  # samples of the region
    region_low_world: tuple[float, float, float]
    region_high_world: tuple[float, float, float]
    n_points_supported: int  # points that shaped the region
    covered_share: float  # of all points, those inside the region
    held_out: tuple[str, ...] = ()  # names of photos
    n_photos: int  # posed
    megapixels: float  # of all of them, undistorted
    long_edge_px: float  # of the median photo
    blocks: list[BlockPlan]
