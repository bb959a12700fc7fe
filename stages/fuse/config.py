"""Configuration and result of the fuse stage."""

from __future__ import annotations

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES


class FuseConfig(StageConfig):
    """Settings of fusing blocks into one mesh."""

    cache_bricks: int = Field(512, ge=27, le=1_000_000)
    """SDF bricks kept in memory while blending (a brick of 32 voxels takes 144 kB)."""
    depth_edge_px: int = Field(512, ge=64, le=4000)
    """Longest edge of the depth maps that decide which vertices a photo sees, pixels."""
    part_faces: int = Field(MAX_RAYCAST_FACES, ge=100, le=100_000_000)
    """Faces of a chunk of the surface, which is processed at once (a million takes about 0.7 GB)."""
    min_confirmed: float = Field(0.3, ge=0, le=3)
    """Photos whose stereo confirms a surface minus those that see through it, at least, averaged around a vertex."""
    min_support: float = Field(1.25, ge=0, le=50)
    """Without stereo: photos that see a surface and agree on its color, at least; at most a sixth of all
    photos."""
    min_cosine: float = Field(0.12, ge=0, lt=1)
    """A photo sees a face only where the cosine between its normal and the view is above this."""
    hole_diameter: float = Field(0.01, ge=0, le=1)
    """Unsupported faces are kept in gaps below this share of the surface's diagonal."""
    island_diameter: float = Field(0.01, ge=0, le=1)
    """Connected components below this share of the surface's diagonal are dropped."""
    color_samples: int = Field(8, ge=1, le=32)
    """Color samples of a vertex that enter its robust mean."""
    glb_faces: int = Field(300_000, ge=1000, le=5_000_000)
    """Faces of mesh.glb at most."""


class FuseResult(StageResult):
    """Statistics of the surface; lengths in meters of the world frame."""

    n_vertices: int
    n_faces: int
    n_components: int
    n_boundary_edges: int  # of the final surface: where it was cut, or no photo sees it
    n_torn_edges: int  # raw boundary edges between two bricks; 0 unless welding failed
    largest_component_share: float  # of the area
    area_m2: float
    n_blocks: int  # in the mesh
    missing_blocks: tuple[str, ...] = ()  # blocks that were not trained: the mesh has holes there
    n_bricks: int
    n_raw_faces: int
    dropped_sky_faces: int
    dropped_unsupported_faces: int
    dropped_island_faces: int
    min_support: float  # the threshold that was used: min_confirmed where there is stereo
    disagreement: float  # typical color disagreement of photos on a vertex, of 255
    confident_share: float  # of the area: mean confidence of a face's corners above 0.5; see vertex_attributes.py
    glb_faces: int
    gain_range: tuple[float, float]  # smallest and largest exposure factor of a photo, 1 = no difference
    seconds: dict[str, float]  # of the steps
