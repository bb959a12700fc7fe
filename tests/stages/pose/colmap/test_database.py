"""Databases are found whatever their folder is called."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from quoin.stages.pose.checks.pure_rotation import find_pure_rotations
from quoin.stages.pose.colmap.database import FEATURE_TABLES, copy_rows, existing_keys, merge_rows
from quoin.stages.pose.colmap.descriptors import DescriptorReader


@pytest.mark.parametrize("name", ["scan #2", "what?mode=rw", "100 %41", "Höfe"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database, other = folder / "database.db", folder / "other.db"
    with sqlite3.connect(database) as made:
        for table in FEATURE_TABLES:
            made.execute(f"CREATE TABLE {table} (image_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB)")
        made.execute("INSERT INTO keypoints VALUES (4, 1, 4, ?)", (np.float32([1, 2, 3, 0]).tobytes(),))
        made.execute("INSERT INTO descriptors VALUES (4, 1, 128, ?)", (bytes(range(128)),))
        made.execute("CREATE TABLE images (image_id, camera_id)")
        made.execute("CREATE TABLE cameras (camera_id, width, height)")
        made.execute("CREATE TABLE two_view_geometries (pair_id, rows, config, H)")
    made.close()
    copy_rows(database, other, FEATURE_TABLES)
    assert existing_keys(other, "descriptors") == {4}
    without = folder / "without.db"
    copy_rows(database, without, FEATURE_TABLES, [5])
    assert existing_keys(without, "keypoints") == set()
    merge_rows([without, database], without, FEATURE_TABLES)
    merge_rows([other, without], without, FEATURE_TABLES)
    assert existing_keys(without, "keypoints") == {4}
    reader = DescriptorReader(other)
    descriptors, scales = reader(3)
    reader.close()
    assert (descriptors[0].tolist(), scales.tolist()) == (list(range(128)), [3.0])
    assert [len(found) for found in find_pure_rotations(database)] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {name}
