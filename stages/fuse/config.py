"""Configuration and result of the fuse stage."""

from __future__ import annotations

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES

VERSION = 5


class FuseConfig(StageConfig):
    """How blocks become one mesh."""

    # SDF bricks kept in memory while blending, 27..1000000 (a brick of 32 voxels takes 144 kB)
    cache_bricks: int = Field(512, ge=27, le=1_000_000)
    # long edge of the depth maps that tell what a photo sees, pixels, 64..4000
    depth_edge_px: int = Field(512, ge=64, le=4000)
    # faces of the part of the surface that is worked on at a time, 100..100000000 (a million takes about 0.7 GB)
    part_faces: int = Field(MAX_RAYCAST_FACES, ge=100, le=100_000_000)
    # by so many more photos stereo must confirm a surface than sees through it, in the mean around a place, 0..3
    min_confirmed: float = Field(0.3, ge=0, le=3)
    # without stereo: photos that must see a surface and agree on its colour, 0..50; at most a sixth of all photos
    min_support: float = Field(1.25, ge=0, le=50)
    # a photo sees a face only where the cosine between its normal and the view is above this, 0..1
    min_cosine: float = Field(0.12, ge=0, lt=1)
    # holes that the lack of support would cut are left closed below this share of the surface's diagonal, 0..1
    hole_diameter: float = Field(0.01, ge=0, le=1)
    # connected pieces are dropped whose extent is below this share of the surface's diagonal, 0..1
    island_diameter: float = Field(0.01, ge=0, le=1)
    # photos whose colours a vertex keeps before the robust mean, 1..32
    color_samples: int = Field(8, ge=1, le=32)
    # faces of mesh.glb at most, 1000..5000000
    glb_faces: int = Field(300_000, ge=1000, le=5_000_000)


class FuseResult(StageResult):
    """What the surface is; lengths in metres of the world frame."""

    n_vertices: int
    n_faces: int
    n_components: int
    n_boundary_edges: int  # of the final surface: where it was cut or never seen
    n_torn_edges: int  # raw boundary edges between two known bricks; 0 unless welding failed
    largest_component_share: float  # of the area
    area_m2: float
    n_blocks: int  # that the mesh is made of
    missing_blocks: tuple[str, ...] = ()  # where it has a hole
    n_bricks: int
    n_raw_faces: int
    dropped_sky_faces: int
    dropped_unsupported_faces: int
    dropped_island_faces: int
    min_support: float  # as used: of min_confirmed where there is stereo
    disagreement: float  # usual difference between the colours photos give a vertex, of 255
    confident_share: float  # of the area: mean confidence of a face's corners above 0.5; see evidence.py
    glb_faces: int
    gain_range: tuple[float, float]  # least and greatest exposure factor found between photos, 1 = no difference
    seconds: dict[str, float]  # of the parts
