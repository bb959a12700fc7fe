"""Masks as COLMAP reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.colmap.image_copies import load_usable_mask, write_masks


def photo(mask_path: str = "", border: tuple[int, int, int, int] = (0, 0, 0, 0)) -> PhotoRow:
    return PhotoRow("a.jpg", "/a.jpg", width=60, height=40, mask_path=mask_path, border=border)


def test_a_frame_is_masked_and_joins_the_mask_of_the_photo(tmp_path: Path) -> None:
    right = np.zeros((40, 60), np.uint8)
    right[:, 30:] = 255
    Image.fromarray(right).save(tmp_path / "m.png")
    photos = [photo(border=(0, 5, 10, 0)), photo(str(tmp_path / "m.png"), (0, 5, 0, 0)), photo(border=(0, 0, 0, 0))]
    assert write_masks(photos, ["0.jpg", "1.jpg", "2.jpg"], tmp_path / "out", 1) == 2
    framed, both, plain = (np.asarray(Image.open(tmp_path / "out" / f"{i}.jpg.png")) for i in range(3))
    assert framed.shape == (40, 60)
    assert not framed[:5].any() and not framed[:, 50:].any() and (framed[5:, :50] == 255).all()
    np.testing.assert_array_equal(both, np.where(np.arange(40)[:, None] < 5, 0, right))
    assert (plain == 255).all()


def test_without_masks_and_frames_nothing_is_written(tmp_path: Path) -> None:
    assert write_masks([photo(), photo(border=(0, 0, 0, 0))], ["0.jpg", "1.jpg"], tmp_path / "out", 1) == 0
    assert not (tmp_path / "out").exists()
    assert load_usable_mask(photo()) is None
