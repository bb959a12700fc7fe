"""COLMAP's databases (SQLite): opened to be read, and rows of one put into another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal

TableName = Literal["keypoints", "descriptors", "matches", "two_view_geometries"]

FEATURE_TABLES: tuple[TableName, ...] = ("keypoints", "descriptors")
MATCH_TABLES: tuple[TableName, ...] = ("matches", "two_view_geometries")


def open_read_only(database: Path) -> sqlite3.Connection:
    """The database, which is there and stays as it is."""
    return sqlite3.connect(_read_only_uri(database), uri=True)


def copy_rows(
    source: Path, target: Path, tables: tuple[TableName, ...], image_ids: Collection[int] | None = None
) -> None:
    """Put the rows of ``tables`` in ``source`` into those of ``target``, made where absent; all or none of them.

    Of ``image_ids`` only, where given.
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
    """Put the rows of ``tables`` in all ``sources`` into those of ``target``, which has them; all or none of them."""
    with closing(sqlite3.connect(target)) as connection, connection:
        for source in sources:
            with closing(open_read_only(source)) as source_connection:
                for table in tables:
                    rows = source_connection.execute(_select_all(table)).fetchall()
                    if rows:  # of a photo without features there are none
                        placeholders = ", ".join("?" * len(rows[0]))
                        insert_statement = f"INSERT OR REPLACE INTO {table} VALUES ({placeholders})"  # noqa: S608  (a Table, no user's word)
                        connection.executemany(insert_statement, rows)


def existing_keys(database: Path, table: TableName) -> set[int]:
    """The photos (COLMAP's image ids) or pairs that a table has."""
    column = "image_id" if table in FEATURE_TABLES else "pair_id"
    with closing(open_read_only(database)) as connection:
        rows = connection.execute(f"SELECT {column} FROM {table}")  # noqa: S608  (a Table, which no user names)
        return {row[0] for row in rows}


def _select_all(table: TableName, database: str = "main") -> str:
    return f"SELECT * FROM {database}.{table}"  # noqa: S608  (a Table, which no user names)


def _read_only_uri(database: Path) -> str:
    return f"{database.absolute().as_uri()}?mode=ro"
