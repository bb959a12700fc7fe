"""What training did to the cameras: kept in tables/cameras_<block>.parquet, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, rotation_angles_deg
from quoin.stages.train.camera_refinement import CameraRefinement
from quoin.stages.train.data.photo_set import BlockFrame

MAX_PLAUSIBLE_PX = 5.0  # half a patch: who moves further has followed a wrong likeness, or was posed wrongly


@torch.no_grad()
def refined_camera_rows(
    cameras: CameraRefinement, frame: BlockFrame, names: list[str], level: np.ndarray
) -> list[dict[str, Any]]:
    """A row per photo: its corrected camera in the world, for the whole photo, and how far that is from the given one.

    ``level`` [K]: how often each photo was halved for the training.
    """
    pose, intrinsics = (tensor.double().cpu().numpy() for tensor in cameras.poses())
    initial_poses = frame.to_cam_from_world(cameras.initial_poses.double().cpu().numpy())
    now = frame.to_cam_from_world(pose)
    columns = {
        "photo": names,
        "cam_from_world": now.reshape(-1, 12).tolist(),
        "intrinsics": (intrinsics * 2.0 ** level[:, None]).tolist(),
        "moved_px": cameras.displacement_px().tolist(),
        "turned_deg": rotation_angles_deg(now[:, :, :3], initial_poses[:, :, :3]).tolist(),
        "moved_m": np.linalg.norm(centers_world(now) - centers_world(initial_poses), axis=1).tolist(),
        "focal_percent": (100.0 * (intrinsics[:, 0] / cameras.intrinsics[:, 0].cpu().numpy() - 1.0)).tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_refined_cameras(path: Path, rows: list[dict[str, Any]], report: Reporter, name: str) -> None:
    """Write the table and say how far cameras moved; a warning names photos that moved implausibly."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    parts = []
    for key, unit in (
        ("moved_px", "px"),
        ("turned_deg", "degrees"),
        ("moved_m", "m"),
        ("focal_percent", "% of focal length"),
    ):
        size = np.abs([row[key] for row in rows])
        parts.append(f"{np.median(size):.2g} {unit} (at most {size.max():.2g})")
    report.log(name, f"cameras moved by {', '.join(parts)} in the median")
    far = [row["photo"] for row in rows if row["moved_px"] > MAX_PLAUSIBLE_PX]
    if far:
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        report.log(
            name,
            f"moved by more than {MAX_PLAUSIBLE_PX:g} px, which is hardly right (look at their poses): "
            f"{', '.join(far[:5])}{more}",
            "warning",
        )
