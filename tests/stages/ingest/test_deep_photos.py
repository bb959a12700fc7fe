"""Photos of 10, 12 and 16 bits in a folder: one range for all of a kind, used by ingest and by whoever loads them."""

from __future__ import annotations

import numpy as np
import pytest

from quoin.pipeline.scene.photo_table import load_photo
from tests.fixtures.image_files import picture, write_tiff


def gray(seed):
    return picture(seed, 144, 192)[..., 0].astype(np.uint16)


@pytest.mark.parametrize("shown_by", [lambda g: 29500 + g * 6, lambda g: g * 16, lambda g: g * 4 + 64])
def test_gray_photos_of_a_part_of_16_bits_are_used_with_all_gray_levels(put, ingest, shown_by):
    for seed in range(3):
        put(f"{seed}.tiff", shown_by(gray(seed)))
    result, rows, logs = ingest(near_duplicates="keep")
    assert result.n_used == 3
    assert len({row.value_range for row in rows.values()}) == 1  # one stretch for the whole folder
    for row in rows.values():
        assert len(np.unique(load_photo(row))) >= 100
    assert any("become black and white" in line for line in logs)


def test_full_photos_and_those_of_8_bits_are_left_as_they_are(put, ingest):
    for seed in range(2):
        put(f"{seed}.tiff", gray(seed) * 257)
        put(f"{seed}.png", seed + 5)
    result, rows, logs = ingest(near_duplicates="keep")
    assert result.n_used == 4
    np.testing.assert_array_equal(load_photo(rows["0.tiff"])[..., 0], gray(0))
    assert not any("become black and white" in line for line in logs)


def test_a_dark_photo_stays_darker_than_a_bright_one(put, ingest):
    put("bright.tiff", gray(0) * 16)
    put("dark.tiff", gray(1) * 4)
    _, rows, _ = ingest(near_duplicates="keep")
    assert load_photo(rows["dark.tiff"]).mean() < 0.5 * load_photo(rows["bright.tiff"]).mean()


def test_colors_have_a_range_of_their_own(put, ingest, photos):
    put("thermal.tiff", 29500 + gray(0) * 6)
    write_tiff(photos / "color.tif", [(picture(1, 144, 192).astype(np.uint16) * 16, True, False, 2)])
    _, rows, _ = ingest(near_duplicates="keep")
    assert rows["thermal.tiff"].value_range[0] > 29000
    assert rows["color.tif"].value_range[1] < 4096
    assert len(np.unique(load_photo(rows["color.tif"]))) >= 100
