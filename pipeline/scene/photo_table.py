"""Tables of photos: one row per file found (tables/photos.parquet, by ingest), and one per photo used that says
how it was posed (tables/poses.parquet, by pose). Read and written here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, RejectedFileError, Rejection
from quoin.pipeline.imaging.io import load_upright
from quoin.pipeline.imaging.value_range import FULL_RANGE, ValueRange
from quoin.pipeline.storage.cache import mirror_file
from quoin.pipeline.storage.layout import check_relative_name, damaged_file_error, sha256_of
from quoin.pipeline.storage.object_store import storage_url
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.tables import read_table, write_table

Array = np.ndarray

POSE_SCHEMA = pa.schema(
    [
        ("photo_id", pa.int64()),
        ("name", pa.string()),
        ("registered", pa.bool_()),
        ("component", pa.int64()),  # -1 none, 0 the one in use
        ("n_points", pa.int64()),
        ("reprojection_px", pa.float64()),  # median
        ("focal_px", pa.float64()),  # of the upright photo
        ("reason", pa.string()),  # a Reason, with its detail; "" where registered
        ("detail", pa.string()),
    ]
)
NEW_COLUMNS = ("value_range", "file_hash")  # that tables of earlier versions lack
PATH_COLUMNS = ("path", "mask_path", "depth_path", "depth_camera")


@dataclass(frozen=True)
class PhotoRow:
    """One file found: a photo to use, or a file with the ``rejection`` that says why it is not used."""

    name: str  # path relative to the photo folder, with forward slashes; of a frame <clip>/000123.jpg
    path: str  # absolute path of the file
    photo_id: int = -1  # row number among used photos, in name order; -1 where not used
    width: int = 0  # upright (after EXIF orientation), pixels; 0 where unreadable
    height: int = 0
    orientation: int = 1  # EXIF orientation 1..8 of the file
    focal_px: float = nan  # in pixels of the upright file, from EXIF; NaN where unknown
    camera: str = ""  # EXIF make, model, lens as one string; "" where unknown
    group: int = -1  # photos of one group may share intrinsics
    latitude_deg: float = nan  # NaN where unknown, as the next two
    longitude_deg: float = nan
    altitude_m: float = nan
    taken_at: str = ""  # EXIF time, "" where unknown
    mask_path: str = ""  # absolute path of its mask, "" where none
    depth_path: str = ""  # absolute path of its sensor's depth map, "" where none
    depth_unit_m: float = nan  # metres per unit of that file
    depth_camera: str = ""  # absolute path of the depth camera's JSON, "" where it is the photo's camera
    border: tuple[int, int, int, int] = (0, 0, 0, 0)  # pixels at left, top, right, bottom that are a frame around it
    value_range: ValueRange = FULL_RANGE  # values that become black and white, of a file of more than 8 bits a channel
    clip: str = ""  # name of the clip that it is a frame of; "" of photos
    time_s: float = nan  # of a frame in its clip; NaN of photos
    content_hash: str = ""  # of the decoded upright pixels
    file_hash: str = ""  # SHA-256 of the file; "" where it was not read
    rejection: Rejection | None = None  # None where used; columns "reason" and "detail"

    @property
    def used(self) -> bool:
        return self.rejection is None

    def rejected(self, reason: Reason, detail: str = "") -> PhotoRow:
        """The same file, not used for this reason."""
        return replace(self, rejection=Rejection(reason, detail))


def check_unchanged(photo: PhotoRow) -> None:
    """Raise QuoinError where the file of a photo is not the one that ingest looked at."""
    try:
        is_changed = bool(photo.file_hash) and sha256_of(Path(photo.path)) != photo.file_hash
    except OSError as error:
        raise RejectedFileError(Reason.UNREADABLE, error.strerror or "", where=photo.path) from None
    if is_changed:
        raise QuoinError(
            f"The photo {photo.name!r} is another than when this run looked at it",
            where=photo.path,
            hint="give the same command again with --force ingest, so that all photos are looked at anew",
        )


def load_photo(photo: PhotoRow) -> UInt8[Array, "h w 3"]:
    """The photo of a row as upright RGB. Raises QuoinError where it cannot be read, or was changed after ingest."""
    check_unchanged(photo)
    return load_upright(Path(photo.path), value_range=photo.value_range)


_ARROW_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
PHOTO_SCHEMA = pa.schema(
    [*((name, _ARROW_TYPES.get(kind, pa.list_(pa.int64()))) for name, kind in PhotoRow.__annotations__.items())][:-1]
    + [("used", pa.bool_()), ("reason", pa.string()), ("detail", pa.string())]
)


def write_photo_table(run: Run, rows: Sequence[PhotoRow]) -> None:
    """Write one row per file found, used or not (PHOTO_SCHEMA)."""
    write_table(run, "photos", [_to_columns(run, row) for row in rows], PHOTO_SCHEMA)


def read_photo_table(run: Run, *, used_only: bool = False) -> list[PhotoRow]:
    """Rows of the photo table; with ``used_only`` row i has photo_id i."""
    rows = _photo_rows(run)
    return sorted((row for row in rows if row.used), key=lambda row: row.photo_id) if used_only else rows


def read_photo_names(run: Run) -> list[str]:
    """Names of all photos found, used or not; masks and depth maps are no photos."""
    rows = read_photo_table(run)
    return [
        r.name for r in rows if r.used or (r.rejection and r.rejection.reason not in (Reason.MASK, Reason.DEPTH_MAP))
    ]


def read_photo_rows(run: Run, photo_ids: Sequence[int]) -> list[PhotoRow]:
    """Rows of these photos, in their order; of photos at a URL no others are brought to this machine."""
    row_of = {row.photo_id: row for row in _photo_rows(run, [("photo_id", "in", photo_ids)], single_file=True)}
    return [row_of[photo_id] for photo_id in photo_ids]


def to_stored_path(run: Run, path: str) -> str:
    """A path as the table stores it: in the run's folder, or in a copy of photos at a URL, relative to that folder."""
    copies = {"run": run.path}  # which may be moved, or a copy of what is at a URL
    copies |= {"photos": run.photos} if storage_url(run.record.photos) else {}
    for kind, folder in copies.items():
        if path and Path(path).is_relative_to(folder):
            return f"{kind}:{Path(path).relative_to(folder).as_posix()}"
    return path


def to_local_path(run: Run, stored_path: str, *, single_file: bool = False) -> str:
    """The path on this machine of a stored one; with ``single_file`` no other photos at a URL are downloaded."""
    kind, _, name = stored_path.partition(":")
    match kind:
        case "run":
            return str(run.file(check_relative_name(name)))
        case "photos":
            check_relative_name(name)
            return str(mirror_file(run.record.photos, name) if single_file else run.photos / name)
    return stored_path


def _to_columns(run: Run, row: PhotoRow) -> dict[str, Any]:
    columns = asdict(replace(row, rejection=None))
    columns |= {name: to_stored_path(run, columns[name]) for name in PATH_COLUMNS if columns[name]}
    rejection = row.rejection
    reason, detail = (rejection.reason.value, rejection.detail) if rejection else ("", "")
    return columns | {"used": row.used, "reason": reason, "detail": detail}


def _photo_rows(run: Run, filters: list[tuple] | None = None, *, single_file: bool = False) -> list[PhotoRow]:
    table = read_table(run, "photos", PHOTO_SCHEMA, filters=filters, optional=NEW_COLUMNS)
    return [_from_columns(run, columns, single_file) for columns in table.to_pylist()]


def write_pose_rows(run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Write how every used photo was posed (POSE_SCHEMA)."""
    write_table(run, "poses", rows, POSE_SCHEMA)


def read_pose_rows(run: Run) -> list[dict[str, Any]]:
    """How every used photo was posed, a mapping of the columns of POSE_SCHEMA for each."""
    rows = read_table(run, "poses", POSE_SCHEMA).to_pylist()
    if any(row[name] is None for row in rows for name in POSE_SCHEMA.names):
        raise damaged_file_error("tables/poses.parquet", "this table has empty cells")
    return rows


def _from_columns(run: Run, columns: dict[str, Any], single_file: bool) -> PhotoRow:
    lengths = {name: len(columns[name] or ()) for name in ("border", "value_range") if name in columns}
    if any(value is None for value in columns.values()) or lengths["border"] != 4 or lengths.get("value_range", 2) != 2:
        raise damaged_file_error("tables/photos.parquet", "this table has empty cells")
    try:
        check_relative_name(columns["name"])
        rejection = Rejection.from_columns(columns.pop("reason"), columns.pop("detail"))
        columns |= {
            name: to_local_path(run, columns[name], single_file=single_file) for name in PATH_COLUMNS if columns[name]
        }
    except ValueError as error:
        raise damaged_file_error("tables/photos.parquet", f"this table cannot be read ({error})") from error
    columns |= {name: tuple(columns[name]) for name in lengths}
    columns["rejection"] = rejection
    del columns["used"]
    return PhotoRow(**columns)
