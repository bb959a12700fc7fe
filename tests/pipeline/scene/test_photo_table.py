"""Rows of the photo table: what they hold comes back, and a photo that was changed after ingest is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.scene.photo_table import PhotoRow, load_photo, read_photo_table, write_photo_table
from quoin.pipeline.storage.layout import sha256_of
from quoin.pipeline.storage.run import Run
from tests.fixtures.image_files import picture


def photo_row(path: Path, **values) -> PhotoRow:
    return PhotoRow(path.name, str(path), file_hash=sha256_of(path), **values)


def test_rows_come_back(tmp_path):
    run = Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)
    rows = [
        PhotoRow("a.tif", "/a.tif", 0, border=(1, 2, 3, 4), value_range=(29500, 31000), file_hash="f", focal_px=1.0),
        PhotoRow("b", "/b", focal_px=2.0).rejected(Reason.BLANK, "it shows nothing"),
    ]
    write_photo_table(run, rows)
    for row, back in zip(rows, read_photo_table(run), strict=True):
        assert (back.border, back.value_range, back.file_hash) == (row.border, row.value_range, row.file_hash)
        assert (back.rejection, back.used, back.focal_px) == (row.rejection, row.used, row.focal_px)


def test_a_photo_is_loaded_by_its_range_of_values(tmp_path):
    gray = picture()[..., 0].astype(np.uint16)
    Image.fromarray(29500 + gray).save(tmp_path / "a.tiff")
    row = photo_row(tmp_path / "a.tiff", value_range=(29500, 29755))
    np.testing.assert_array_equal(load_photo(row)[..., 0], gray)


def test_a_photo_changed_after_ingest_is_refused(tmp_path):
    path = tmp_path / "a.ppm"
    Image.fromarray(picture(0)).save(path)
    row = photo_row(path)
    np.testing.assert_array_equal(load_photo(row), picture(0))
    Image.fromarray(picture(1)).save(path)  # of the same size
    with pytest.raises(QuoinError, match=r"'a.ppm' is another than .* --force ingest"):
        load_photo(row)
    path.unlink()
    with pytest.raises(QuoinError, match="unreadable"):
        load_photo(row)
