"""COLMAP's databases (SQLite): opened to be read, and rows of one put into another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal

Table = Literal["keypoints", "descriptors", "matches", "two_view_geometries"]

FEATURES: tuple[Table, ...] = ("keypoints", "descriptors")
MATCHES: tuple[Table, ...] = ("matches", "two_view_geometries")


def to_read(database: Path) -> sqlite3.Connection:
    """The database, which is there and stays as it is."""
    return sqlite3.connect(_unchanged(database), uri=True)


def copy_rows(source: Path, target: Path, tables: tuple[Table, ...], image_ids: Collection[int] | None = None) -> None:
    """Put the rows of ``tables`` in ``source`` into those of ``target``, made where absent; all or none of them.

    Of ``image_ids`` only, where given.
    """
    only = "" if image_ids is None else " WHERE image_id IN (SELECT value FROM json_each(?))"
    ids = () if image_ids is None else (json.dumps(sorted(image_ids)),)
    with closing(sqlite3.connect(target.absolute().as_uri(), uri=True)) as connection:
        connection.execute("ATTACH DATABASE ? AS source", (_unchanged(source),))
        with connection:
            for table in tables:
                rows = _all(table, "source")
                connection.execute(f"CREATE TABLE IF NOT EXISTS main.{table} AS {rows} WHERE 0")
                connection.execute(f"INSERT OR REPLACE INTO main.{table} {rows}{only}", ids)


def gather_rows(sources: Iterable[Path], target: Path, tables: tuple[Table, ...]) -> None:
    """Put the rows of ``tables`` in all ``sources`` into those of ``target``, which has them; all or none of them."""
    with closing(sqlite3.connect(target)) as connection, connection:
        for source in sources:
            with closing(to_read(source)) as opened:
                for table in tables:
                    rows = opened.execute(_all(table)).fetchall()
                    if rows:  # of a photo without features there are none
                        marks = ", ".join("?" * len(rows[0]))
                        into = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"  # noqa: S608  (a Table, no user's word)
                        connection.executemany(into, rows)


def keys_in(database: Path, table: Table) -> set[int]:
    """The photos (COLMAP's image ids) or pairs that a table has."""
    column = "image_id" if table in FEATURES else "pair_id"
    with closing(to_read(database)) as connection:
        rows = connection.execute(f"SELECT {column} FROM {table}")  # noqa: S608  (a Table, which no user names)
        return {row[0] for row in rows}


def _all(table: Table, database: str = "main") -> str:
    return f"SELECT * FROM {database}.{table}"  # noqa: S608  (a Table, which no user names)


def _unchanged(database: Path) -> str:
    return f"{database.absolute().as_uri()}?mode=ro"
