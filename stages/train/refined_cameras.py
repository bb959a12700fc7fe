"""The table of refined cameras of a block, and a summary of them in the log."""

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

MAX_PLAUSIBLE_PX = 5.0  # half a patch: more is a wrong match, or a wrong initial pose


@torch.no_grad()
def refined_camera_rows(
    cameras: CameraRefinement, frame: BlockFrame, names: list[str], level: np.ndarray
) -> list[dict[str, Any]]:
    """A row per photo: its refined camera in the world, at full size, and the difference from the initial one.

    ``level`` [K]: pyramid level of each photo in the training.
    """
    pose, intrinsics = (tensor.double().cpu().numpy() for tensor in cameras.poses())
    initial_poses = frame.to_cam_from_world(cameras.initial_poses.double().cpu().numpy())
    now = frame.to_cam_from_world(pose)
    columns = {
        "photo": names,
        "cam_from_world": now.reshape(-1, 12).tolist(),
        "intrinsics": (intrinsics * 2.0 ** level[:, None]).tolist(),
        "displacement_px": cameras.displacement_px().tolist(),
        "rotation_deg": rotation_angles_deg(now[:, :, :3], initial_poses[:, :, :3]).tolist(),
        "translation_m": np.linalg.norm(centers_world(now) - centers_world(initial_poses), axis=1).tolist(),
        "focal_percent": (100.0 * (intrinsics[:, 0] / cameras.intrinsics[:, 0].cpu().numpy() - 1.0)).tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_refined_cameras(path: Path, rows: list[dict[str, Any]], report: Reporter, name: str) -> None:
    """Write the table, log how far cameras moved, and warn of photos that moved implausibly far."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    parts = []
    for key, unit in (
        ("displacement_px", "px"),
        ("rotation_deg", "degrees"),
        ("translation_m", "m"),
        ("focal_percent", "% of focal length"),
    ):
        size = np.abs([row[key] for row in rows])
        parts.append(f"{np.median(size):.2g} {unit} (at most {size.max():.2g})")
    report.log(name, f"cameras moved by {', '.join(parts)} in the median")
    far = [row["photo"] for row in rows if row["displacement_px"] > MAX_PLAUSIBLE_PX]
    if far:
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        report.log(
            name,
            f"cameras moved by more than {MAX_PLAUSIBLE_PX:g} px, which is implausible; check their poses: "
            f"{', '.join(far[:5])}{more}",
            "warning",
        )
