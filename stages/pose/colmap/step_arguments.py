"""What the steps of ``stages.pose.colmap.process`` are told of photos and pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.image_copies import write_masks
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.workspace import Workspace

Array = np.ndarray


def image_import_arguments(
    photo_ids: list[int], files: list[str], cameras: list[Camera], camera_of: list[int]
) -> dict[str, Any]:
    """Photos, the file of each, and their cameras."""
    rows = zip(photo_ids, files, camera_of, strict=True)
    return {
        "cameras": [camera.as_json() for camera in cameras],
        "photos": [{"id": photo_id, "file": file, "camera": camera} for photo_id, file, camera in rows],
    }


def extraction_arguments(
    workspace: Workspace,
    config: PoseConfig,
    photos: list[PhotoRow],
    files: list[str],
    cameras: list[Camera],
    camera_of: list[int],
) -> tuple[dict[str, Any], int]:
    """Features of photos, whose masks are laid out for it; and how many photos have one."""
    n_masks = write_masks(photos, files, workspace.masks, workspace.threads)
    job = {
        **image_import_arguments([photo.photo_id for photo in photos], files, cameras, camera_of),
        "masks": str(workspace.masks) if n_masks else "",
        "max_edge_px": config.max_edge_px,
        "max_features": config.max_features,
    }
    return job, n_masks


def matching_arguments(workspace: Workspace, files: dict[int, str], pairs: Int[Array, "m 2"]) -> dict[str, Any]:
    """Pairs of photos, listed in a file by the files of the photos."""
    listing = workspace.folder / "pairs.txt"
    listing.write_text("".join(f"{files[a]} {files[b]}\n" for a, b in pairs.tolist()))
    return {"pairs_file": str(listing), "block_size": int(np.clip(len(pairs) // 40, 50, 1225))}
