"""Settings of the report stage, and its result."""

from __future__ import annotations

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult


class ReportConfig(StageConfig):
    """How many pictures the report shows and how large they are."""

    n_views: int = Field(5, ge=0, le=24)
    """Photos shown beside the mesh drawn from the same camera."""
    view_edge_px: int = Field(640, ge=64, le=4096)
    """Long edge of those pictures, pixels."""
    embed_limit_mb: float = Field(25.0, gt=0, le=200)
    """Size of mesh.glb, megabytes, above which it is decimated before it goes into the page."""


class ReportResult(StageResult):
    """The path of the report and its main numbers; None where the run has not measured one yet."""

    path: str  # of report.html
    size_bytes: int
    n_photos_found: int | None
    n_photos_used: int | None
    n_photos_posed: int | None
    n_vertices: int | None
    n_faces: int | None
    heldout_psnr_db: float | None
    total_seconds: float
    peak_memory_bytes: int | None
    n_warnings: int
