"""The photo table (tables/photos.parquet, by ingest), one row per file found. Read and written here only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from quoin.pipeline.storage.run import Run

PHOTO_SCHEMA = pa.schema(
    [
        ("photo_id", pa.int64()),  # row number among used photos, in name order; -1 where not used
        ("name", pa.string()),  # path relative to the photo folder, with forward slashes; of a frame <clip>/000123.jpg
        ("path", pa.string()),  # absolute path of the file
        ("width", pa.int64()),  # upright (after EXIF orientation), pixels; 0 where unreadable
        ("height", pa.int64()),
        ("orientation", pa.int64()),  # EXIF orientation 1..8 of the file
        ("focal_px", pa.float64()),  # in pixels of the upright file, from EXIF; NaN where unknown
        ("camera", pa.string()),  # EXIF make, model, lens as one string; "" where unknown
        ("group", pa.int64()),  # photos of one group may share intrinsics
        ("latitude_deg", pa.float64()),  # NaN where unknown, as the next two
        ("longitude_deg", pa.float64()),
        ("altitude_m", pa.float64()),
        ("taken_at", pa.string()),  # EXIF time, "" where unknown
        ("mask_path", pa.string()),  # absolute path of its mask, "" where none
        ("depth_path", pa.string()),  # absolute path of its sensor's depth map, "" where none
        ("depth_unit_m", pa.float64()),  # metres per unit of that file
        ("depth_camera", pa.string()),  # absolute path of the depth camera's JSON, "" where it is the photo's camera
        ("border", pa.list_(pa.int64())),  # pixels at left, top, right, bottom that are a frame; null or zeros: none
        ("clip", pa.string()),  # name of the clip that it is a frame of; "" of photos
        ("time_s", pa.float64()),  # of a frame in its clip; NaN of photos
        ("content_hash", pa.string()),  # of the decoded upright pixels
        ("used", pa.bool_()),
        ("reason", pa.string()),  # why it is not used; "" where used
    ]
)


PATH_COLUMNS = ("path", "mask_path", "depth_path", "depth_camera")


def write_photo_table(run: Run, rows: list[dict[str, Any]]) -> None:
    """One row per file found, used or not (PHOTO_SCHEMA)."""
    rows = [row | {name: run.relative_path(row[name]) for name in PATH_COLUMNS if row.get(name)} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=PHOTO_SCHEMA), run.table("photos"))


def read_photo_table(run: Run, *, used_only: bool = False) -> list[dict[str, Any]]:
    """Rows of the photo table; with ``used_only`` row i has photo_id i."""
    rows = _photo_rows(run)
    return sorted((r for r in rows if r["used"]), key=lambda r: r["photo_id"]) if used_only else rows


def read_photo_rows(run: Run, photo_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of these photos, in their order; of photos at a URL no others are brought to this machine."""
    row_of = {row["photo_id"]: row for row in _photo_rows(run, [("photo_id", "in", photo_ids)], single_file=True)}
    return [row_of[photo_id] for photo_id in photo_ids]


def _photo_rows(run: Run, filters: list[tuple] | None = None, *, single_file: bool = False) -> list[dict[str, Any]]:
    rows = pq.read_table(run.file("tables/photos.parquet"), filters=filters).to_pylist()
    for row in rows:
        row.update({name: run.local(row[name], single_file=single_file) for name in PATH_COLUMNS if row[name]})
    return rows
