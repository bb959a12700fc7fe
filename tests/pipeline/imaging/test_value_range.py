"""Photos of more than 8 bits: what they span, one range for all, every layout of 16-bit TIFF and PNG."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.imaging.io import apply_orientation, load_upright, open_image
from quoin.pipeline.imaging.value_range import (
    FULL_RANGE,
    MIN_SPAN,
    common_value_range,
    deep_values,
    find_value_span,
    is_deep_color,
    to_8_bits,
)
from tests.fixtures.image_files import UNDO, picture, write_tiff

RGB = picture()
WIDE = RGB.astype(np.uint16) * 257
TWELVE_BITS = RGB.astype(np.uint16) * 16  # 12 bits in 16


def write_deep_png(path, values):
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width, codec.pix_fmt = *values.shape[:2], "rgb48be"
    frame = av.VideoFrame.from_ndarray(values, format="rgb48be")
    path.write_bytes(b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)]))
    return path


def test_the_span_is_that_of_nearly_all_values():
    values = np.full((100, 100), 29500, np.uint16)
    values[50:] = 31000
    values[0, :5] = 65535  # glaring pixels
    values[1, :50] = 0  # no value
    assert find_value_span(values) == (29500, 31000)
    assert find_value_span(np.full((9, 9), 7, np.uint16)) is None
    assert find_value_span(np.zeros((9, 9), np.uint16)) is None


def test_one_range_holds_all_photos():
    assert common_value_range([(29500, 30000), None, (29700, 31000)]) == (29500, 31000)
    assert common_value_range([(16, 4080)]) == (16, 4080)
    assert common_value_range([(300, 20000), (90, 61000)]) == FULL_RANGE  # full photos are left as they are
    assert common_value_range([(100, 104)]) == (100, 100 + MIN_SPAN)  # noise stays small
    assert common_value_range([None]) == common_value_range([]) == FULL_RANGE
    assert common_value_range([(70000, 170000)]) == (70000, 170000)  # of 32 bits


def test_the_range_is_cut_into_256_equal_steps():
    values = np.arange(65536)
    np.testing.assert_array_equal(to_8_bits(values.astype(np.uint16), FULL_RANGE), values >> 8)
    np.testing.assert_array_equal(to_8_bits(values.astype(np.int32), FULL_RANGE), values >> 8)
    stretched = to_8_bits(values.astype(np.uint16), (1000, 2000))
    assert stretched[:1001].max() == 0
    assert stretched[2000:].min() == 255
    assert stretched[1500] == 127
    assert len(np.unique(stretched[1000:2001])) == 256


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("planar", [False, True])
def test_colors_of_16_bits_are_read_as_they_are(tmp_path, planar, orientation):
    """Planar ones came out garbled, 12 bits in 16 as twelve gray levels."""
    stored = apply_orientation(WIDE, UNDO[orientation])
    path = write_tiff(tmp_path / "a.tif", [(stored, planar, False, 2)], orientation)
    assert np.abs(load_upright(path).astype(int) - RGB).max() <= 1
    path = write_tiff(path, [(apply_orientation(TWELVE_BITS, UNDO[orientation]), planar, False, 2)], orientation)
    assert np.abs(load_upright(path, value_range=(0, 4095)).astype(int) - RGB).max() <= 1


def test_a_deep_png_keeps_its_values(tmp_path):
    path = write_deep_png(tmp_path / "a.png", TWELVE_BITS)
    with open_image(path) as image:
        assert is_deep_color(image, path)
        np.testing.assert_array_equal(deep_values(image, path), TWELVE_BITS)
    assert np.abs(load_upright(path, value_range=(0, 4095)).astype(int) - RGB).max() <= 1
    Image.fromarray(RGB).save(tmp_path / "plain.png")
    with open_image(tmp_path / "plain.png") as image:
        assert not is_deep_color(image, tmp_path / "plain.png")


def test_transparency_of_16_bits_lies_on_white(tmp_path):
    rgba = np.dstack([TWELVE_BITS, np.full(RGB.shape[:2], 65535, np.uint16)])
    rgba[:10, :, 3] = 0
    path = write_tiff(tmp_path / "a.tif", [(rgba, False, False, 2)])
    got = load_upright(path, value_range=(0, 4095))
    assert (got[:10] == 255).all()
    assert np.abs(got[10:].astype(int) - RGB[10:]).max() <= 1


def test_what_neither_decoder_reads_is_refused(tmp_path):
    cmyk = np.dstack([WIDE, WIDE[..., 0]])
    path = write_tiff(tmp_path / "cmyk.tif", [(cmyk, True, False, 5)])
    with pytest.raises(QuoinError, match="unreadable"):
        load_upright(path)
    whole = write_tiff(tmp_path / "a.tif", [(WIDE, True, False, 2)]).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(QuoinError, match=r"unreadable|truncated"):
        load_upright(tmp_path / "cut.tif")
