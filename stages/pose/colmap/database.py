"""COLMAP's database: read by pycolmap; rows of one copied into another by SQLite.

pycolmap cannot copy rows: its ``merge`` numbers images anew, and its tables of features want the images beside them.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from quoin.pipeline.storage.layout import damaged_file_error
from quoin.stages.pose.colmap import load_pycolmap

Array = np.ndarray
TableName = Literal["keypoints", "descriptors", "matches", "two_view_geometries"]

FEATURE_TABLES: tuple[TableName, ...] = ("keypoints", "descriptors")
MATCH_TABLES: tuple[TableName, ...] = ("matches", "two_view_geometries")


class DescriptorReader:
    """Callable: photo id to its SIFT descriptors uint8 [n, 128] and their scales in pixels [n] (n may be 0)."""

    def __init__(self, database: Path) -> None:
        self._database = _open(database)

    def __call__(self, photo_id: int) -> tuple[UInt8[Array, "n d"], Float[Array, "n"]]:
        descriptors = self._database.read_descriptors(photo_id + 1).data
        keypoints = self._database.read_keypoints(photo_id + 1)
        if not len(descriptors) or not len(keypoints):
            return np.zeros((0, 128), np.uint8), np.zeros(0, np.float32)
        # x, y, scale, orientation; or x, y and the affine shape a11, a12, a21, a22
        is_similarity = keypoints.shape[1] == 4
        return descriptors, keypoints[:, 2] if is_similarity else np.hypot(keypoints[:, 2], keypoints[:, 4])

    def close(self) -> None:
        self._database.close()


class TwoViewGeometry(NamedTuple):
    """The verified geometry of a pair of photos; ``sizes`` are width and height of both, in pixels."""

    photo_ids: tuple[int, int]
    config: int  # pycolmap.TwoViewGeometryConfiguration
    homography: Float[Array, "3 3"] | None
    sizes: Int[Array, "2 2"]


def read_two_view_geometries(database: Path, min_inliers: int) -> list[TwoViewGeometry]:
    """The geometry of every pair of photos with at least ``min_inliers`` verified matches."""
    pycolmap, geometries = load_pycolmap(), []
    with _open(database) as opened:
        cameras = {image.image_id: opened.read_camera(image.camera_id) for image in opened.read_all_images()}
        for pair_id, n_inliers in zip(*opened.read_two_view_geometry_num_inliers(), strict=True):
            if n_inliers < min_inliers:
                continue
            images = pycolmap.pair_id_to_image_pair(pair_id)
            geometry = opened.read_two_view_geometry(*images)
            sizes = np.array([[cameras[image].width, cameras[image].height] for image in images])
            photo_ids = (images[0] - 1, images[1] - 1)
            geometries.append(TwoViewGeometry(photo_ids, int(geometry.config), geometry.H, sizes))
    return geometries


def read_verified_matches(
    database: Path, min_inliers: int
) -> Iterator[tuple[tuple[int, int], Float[Array, "n 2"], Float[Array, "n 2"]]]:
    """Ids of each pair of photos with at least ``min_inliers`` verified matches, and their pixels in both photos."""
    pycolmap = load_pycolmap()
    with _open(database) as opened:
        keypoints = functools.lru_cache(256)(lambda image: opened.read_keypoints(image)[:, :2].astype(np.float64))
        for pair_id, n_inliers in zip(*opened.read_two_view_geometry_num_inliers(), strict=True):
            if n_inliers >= min_inliers:
                first, second = pycolmap.pair_id_to_image_pair(pair_id)
                matches = opened.read_two_view_geometry(first, second).inlier_matches
                yield (first - 1, second - 1), keypoints(first)[matches[:, 0]], keypoints(second)[matches[:, 1]]


def pair_ids(pairs: Int[Array, "m 2"]) -> list[int]:
    """COLMAP's id of each pair of photos, by which tables of matches are keyed."""
    to_pair_id = load_pycolmap().image_pair_to_pair_id
    return [to_pair_id(a + 1, b + 1) for a, b in pairs.tolist()]


def existing_keys(database: Path, table: TableName) -> set[int]:
    """COLMAP's ids of the images or pairs that a table has rows of, also of pairs without any match."""
    column = "image_id" if table in FEATURE_TABLES else "pair_id"
    with closing(sqlite3.connect(_read_only_uri(database), uri=True)) as connection:
        rows = connection.execute(f"SELECT {column} FROM {table}")  # noqa: S608  (a TableName, which no user gives)
        return {row[0] for row in rows}


def find_damage(database: Path) -> str:
    """What SQLite finds wrong with a database file; "" where it is whole."""
    try:
        with closing(sqlite3.connect(_read_only_uri(database), uri=True)) as connection:
            first: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if first == "ok" else first.replace("\n", " ")


def copy_rows(
    source: Path, target: Path, tables: tuple[TableName, ...], image_ids: Collection[int] | None = None
) -> None:
    """Copy the rows of ``tables`` in ``source``, or those of ``image_ids`` only, into ``target``; all or none of them.

    Tables that ``target`` lacks are made.
    """
    where_clause = "" if image_ids is None else " WHERE image_id IN (SELECT value FROM json_each(?))"
    ids = () if image_ids is None else (json.dumps(sorted(image_ids)),)
    with closing(sqlite3.connect(target.absolute().as_uri(), uri=True)) as connection:
        connection.execute("ATTACH DATABASE ? AS source", (_read_only_uri(source),))
        with connection:
            for table in tables:
                rows = _select_all(table, "source")
                connection.execute(f"CREATE TABLE IF NOT EXISTS main.{table} AS {rows} WHERE 0")
                connection.execute(f"INSERT OR REPLACE INTO main.{table} {rows}{where_clause}", ids)


def merge_rows(sources: Iterable[Path], target: Path, tables: tuple[TableName, ...]) -> None:
    """Copy the rows of ``tables`` in all ``sources`` into ``target``, which has the tables; all or none of them."""
    with closing(sqlite3.connect(target)) as connection, connection:
        for source in sources:
            with closing(sqlite3.connect(_read_only_uri(source), uri=True)) as source_connection:
                for table in tables:
                    try:
                        rows = source_connection.execute(_select_all(table)).fetchall()
                    except sqlite3.DatabaseError as error:
                        raise damaged_file_error(f"work/pose/shared/{source.name}", f"features: {error}") from error
                    if rows:  # a photo without features has none
                        placeholders = ", ".join("?" * len(rows[0]))
                        insert_statement = f"INSERT OR REPLACE INTO {table} VALUES ({placeholders})"  # noqa: S608
                        connection.executemany(insert_statement, rows)


def _open(database: Path) -> Any:
    """The pycolmap.Database in a file that exists."""
    return load_pycolmap().Database.open(str(database))


def _select_all(table: TableName, database: str = "main") -> str:
    return f"SELECT * FROM {database}.{table}"  # noqa: S608  (a TableName, which no user gives)


def _read_only_uri(database: Path) -> str:
    return f"{database.absolute().as_uri()}?mode=ro"
