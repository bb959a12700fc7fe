"""What training did to the cameras: kept in tables/cameras_<block>.parquet, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import angles_deg, centers_world
from quoin.stages.train.camera_refinement import Cameras
from quoin.stages.train.data.photo_set import BlockFrame

IMPLAUSIBLE_PX = 5.0  # half a patch: who moves further has followed a wrong likeness, or was posed wrongly


@torch.no_grad()
def rows(cameras: Cameras, frame: BlockFrame, names: list[str], level: np.ndarray) -> list[dict[str, Any]]:
    """A row per photo: its corrected camera in the world, for the whole photo, and how far that is from the given one.

    ``level`` [K]: how often each photo was halved for the training.
    """
    pose, intrinsics = (tensor.double().cpu().numpy() for tensor in cameras.poses())
    given = frame.camera_from_world(cameras.given.double().cpu().numpy())
    now = frame.camera_from_world(pose)
    columns = {
        "photo": names,
        "cam_from_world": now.reshape(-1, 12).tolist(),
        "intrinsics": (intrinsics * 2.0 ** level[:, None]).tolist(),
        "moved_px": cameras.moved().tolist(),
        "turned_deg": angles_deg(now[:, :, :3], given[:, :, :3]).tolist(),
        "moved_m": np.linalg.norm(centers_world(now) - centers_world(given), axis=1).tolist(),
        "focal_percent": (100.0 * (intrinsics[:, 0] / cameras.intrinsics[:, 0].cpu().numpy() - 1.0)).tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def keep(path: Path, found: list[dict[str, Any]], report: Reporter, name: str) -> None:
    """Write the table and say how far cameras moved; a warning names photos that moved implausibly."""
    pq.write_table(pa.Table.from_pylist(found), path)
    said = []
    for key, unit in (
        ("moved_px", "px"),
        ("turned_deg", "degrees"),
        ("moved_m", "m"),
        ("focal_percent", "% of focal length"),
    ):
        size = np.abs([row[key] for row in found])
        said.append(f"{np.median(size):.2g} {unit} (at most {size.max():.2g})")
    report.log(name, f"cameras moved by {', '.join(said)} in the median")
    far = [row["photo"] for row in found if row["moved_px"] > IMPLAUSIBLE_PX]
    if far:
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        report.log(
            name,
            f"moved by more than {IMPLAUSIBLE_PX:g} px, which is hardly right (look at their poses): "
            f"{', '.join(far[:5])}{more}",
            "warning",
        )
