"""Formats that a run can be exported in, and the result of an export."""

from __future__ import annotations

from typing import Literal, get_args

from quoin.pipeline.core.config import StageResult

ExportFormat = Literal["ply", "glb", "obj", "colmap", "nerfstudio"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
MESH_FORMATS = ("ply", "glb", "obj")  # one file; the others are folders


class ExportResult(StageResult):
    """The files that an export wrote."""

    format: str
    path: str  # the file, or the folder
    n_files: int
    n_bytes: int
    n_photos: int  # 0 for a mesh
    n_points: int  # sparse points, 0 for a mesh
    n_faces: int  # 0 for cameras
