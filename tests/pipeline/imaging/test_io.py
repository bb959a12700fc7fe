"""Photos and masks from disk: upright in every format and mode, or a reason; a photo and its mask agree."""

from __future__ import annotations

import contextlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.imaging.io import (
    PHOTO_FORMATS,
    apply_orientation,
    has_same_aspect,
    load_mask,
    load_upright,
    open_image,
    stored_orientation,
)
from tests.fixtures.image_files import UNDO, bomb_png, picture, save

ALL = range(1, 9)


# -- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "corner"), list(enumerate(["TL", "TR", "BR", "BL", "LT", "RT", "RB", "LB"], start=1))
)
def test_row_and_column_zero_go_where_exif_says(orientation, corner):
    """EXIF 2.32: the letters name the upright side on which stored row 0 lies, then that of stored column 0."""
    stored = np.arange(6).reshape(2, 3)
    upright = apply_orientation(stored, orientation)
    sides = {"T": upright[0], "B": upright[-1], "L": upright[:, 0], "R": upright[:, -1]}
    assert sorted(sides[corner[0]]) == [0, 1, 2]
    assert sorted(sides[corner[1]]) == [0, 3]


@given(st.sampled_from(list(ALL)), st.integers(1, 9), st.integers(1, 9), st.data())
def test_turning_moves_each_pixel_to_its_upright_place(orientation, height, width, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    stored = np.zeros((height, width), np.uint8)
    stored[row, column] = 1
    bottom, right = height - 1 - row, width - 1 - column
    upright_row, upright_column = {
        1: (row, column),
        2: (row, right),
        3: (bottom, right),
        4: (bottom, column),
        5: (column, row),
        6: (column, bottom),
        7: (right, bottom),
        8: (right, row),
    }[orientation]
    upright = apply_orientation(stored, orientation)
    assert upright[upright_row, upright_column] == 1
    assert upright.sum() == 1
    np.testing.assert_array_equal(apply_orientation(upright, UNDO[orientation]), stored)


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".jpg", {"quality": 97, "subsampling": 0}, 8),
        (".png", {}, 0),
        (".tif", {}, 0),
        (".tif", {"compression": "tiff_lzw"}, 0),
        (".webp", {"lossless": True}, 0),
        (".heic", {}, 8),
        (".avif", {"quality": 100, "subsampling": "4:4:4"}, 8),
    ],
)
def test_every_format_comes_out_upright(tmp_path, suffix, options, tolerance, orientation):
    if suffix == ".heic" and "HEIF" not in PHOTO_FORMATS:
        pytest.skip("pillow-heif is not installed")
    upright = picture()
    path = save(tmp_path / f"a{suffix}", apply_orientation(upright, UNDO[orientation]), orientation, **options)
    got = load_upright(path)
    assert got.dtype == np.uint8
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() <= tolerance
    with open_image(path) as image:
        assert stored_orientation(image) == orientation


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "CMYK", "P"])
def test_uncompressed_tiffs_of_every_mode_come_out_upright(tmp_path, mode, orientation):
    """Those were garbled where they lie on their side: Pillow maps them into memory, with the sides exchanged."""
    gray = picture()[..., 0]
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # to stored pixels, by number of PIL.Image.Transpose
    stored = image.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.tif", exif=exif)
    np.testing.assert_array_equal(load_upright(tmp_path / "a.tif")[..., 1], gray)


@pytest.mark.parametrize("value", [0, 9, 77, 65535])
def test_an_invalid_orientation_is_upright(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_upright(tmp_path / "a.png"), picture())


# -- modes -----------------------------------------------------------------------------------------------------------


def test_modes_become_rgb(tmp_path):
    rgb = picture()
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    cases = {
        "grey.png": (Image.fromarray(grey), np.repeat(grey[..., None], 3, 2), 0),
        "sixteen.png": (Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[..., None], 3, 2), 0),
        "sixteen.tif": (Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[..., None], 3, 2), 0),
        "bit.png": (Image.fromarray(grey > 99), np.repeat(np.where(grey > 99, 255, 0)[..., None], 3, 2), 0),
        "cmyk.jpg": (Image.fromarray(rgb).convert("CMYK"), rgb, 16),
        "cmyk.tif": (Image.fromarray(rgb).convert("CMYK"), rgb, 0),
        "palette.png": (Image.fromarray(rgb // 64 * 64).quantize(64), rgb // 64 * 64, 0),
    }
    for name, (image, want, tolerance) in cases.items():
        image.save(tmp_path / name)
        got = load_upright(tmp_path / name)
        assert got.shape == rgb.shape, name
        assert np.abs(got.astype(int) - want).max() <= tolerance, name


def test_transparency_lies_on_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, 4:] = (10, 200, 30, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    got = load_upright(tmp_path / "a.png")
    assert (got[:, :4] == 255).all()
    assert (got[:, 4:] == (10, 200, 30)).all()


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(QuoinError, match="floating-point"):
        load_upright(tmp_path / "depth.tif")


# -- hostile files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image of a known format"),
        (b"hello", "no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),  # would start Ghostscript
        (bomb_png(60_000, 60_000), "too large: the limit is 300 megapixels"),
        (bomb_png(10_000, 10_000), "truncated"),  # 100 megapixels are allowed; these are not there
        (b"\xff\xd8\xff\xe0" + bytes(50), "unreadable"),
    ],
)
def test_hostile_bytes_give_a_reason(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(QuoinError, match=reason):
        load_upright(tmp_path / "a.jpg")


def test_a_limit_is_kept_before_decoding(tmp_path):
    save(tmp_path / "a.png", picture())
    with pytest.raises(QuoinError, match=r"too large: 144 x 96 pixels, the limit is 0.01 megapixels"):
        load_upright(tmp_path / "a.png", max_pixels=10_000)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_truncated(tmp_path, suffix):
    whole = save(tmp_path / f"a{suffix}", picture(0, 480, 640)).read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(QuoinError, match=r"^(truncated|unreadable)"):
        load_upright(tmp_path / f"a{suffix}")


@given(st.integers(0, 2**32 - 1), st.sampled_from([".jpg", ".png", ".tif", ".webp"]))
def test_scrambled_bytes_never_raise_anything_else(tmp_path_factory, seed, suffix):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("scrambled") / f"a{suffix}"
    data = bytearray(save(path, picture(seed=seed), int(rng.integers(1, 9))).read_bytes())
    for _ in range(int(rng.integers(1, 30))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    path.write_bytes(data)
    with contextlib.suppress(QuoinError):
        assert load_upright(path, max_pixels=10_000_000).shape[2] == 3


def test_errors_behind_the_pixels_of_a_png_are_not_hidden_by_looking_for_exif(tmp_path):
    data = bytearray(save(tmp_path / "a.png", picture(0, 480, 640)).read_bytes())
    middle = data.index(b"IDAT") + 200
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(QuoinError), open_image(tmp_path / "a.png") as image:
        stored_orientation(image)


def test_pillow_warnings_are_silent_in_threads_and_the_filters_stay(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(
        path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06"
    )  # cut short
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with Image.open(path) as image:
            image.getexif()
        assert heard  # this file does make Pillow speak
        heard.clear()
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            shapes = {a.shape for a in pool.map(load_upright, [path] * 40)}
        assert warnings.filters == before
        assert not heard
    assert len(shapes) == 1


# -- masks -----------------------------------------------------------------------------------------------------------


def upright_mask() -> np.ndarray:
    return np.where(picture(seed=5)[..., 0] > 128, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("orientation", ALL)
def test_a_mask_that_carries_its_photos_orientation_is_turned_alike(tmp_path, orientation):
    path = save(tmp_path / "m.png", apply_orientation(upright_mask(), UNDO[orientation]), orientation)
    np.testing.assert_array_equal(load_mask(path, (144, 96), orientation), upright_mask())


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_shape_is_turned_as_its_photo(tmp_path, orientation):
    Image.fromarray(apply_orientation(upright_mask(), UNDO[orientation])).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png", (144, 96), orientation), upright_mask())


@pytest.mark.parametrize("orientation", ALL)
def test_an_upright_mask_of_a_turned_photo_stays(tmp_path, orientation):
    Image.fromarray(upright_mask()).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png", (144, 96), orientation), upright_mask())


def test_a_mask_of_another_resolution_is_resized(tmp_path):
    Image.fromarray(upright_mask()[::2, ::2]).save(tmp_path / "half.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "half.png", (144, 96)), upright_mask())
    Image.fromarray(upright_mask()).save(tmp_path / "full.png")
    assert load_mask(tmp_path / "full.png", (1013, 675)).shape == (675, 1013)


def test_a_mask_of_another_shape_is_refused(tmp_path):
    Image.fromarray(upright_mask()).save(tmp_path / "m.png")
    with pytest.raises(QuoinError, match="144 x 96 pixels, which does not fit its photo of 144 x 100"):
        load_mask(tmp_path / "m.png", (144, 100))
    with pytest.raises(QuoinError, match="does not fit"):
        load_mask(tmp_path / "m.png", (96, 144), 3)


@given(st.integers(8, 6000), st.integers(8, 6000), st.floats(0.02, 1))
def test_a_picture_fits_its_own_resized_copies(width, height, scale):
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    assert has_same_aspect(small, (width, height))
    assert has_same_aspect((width, height), small)
    assert not has_same_aspect((width, 2 * height), (width, height))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(upright_mask()),
        Image.fromarray(upright_mask() // 255),  # 0 and 1
        Image.fromarray(upright_mask() > 0),  # one bit
        Image.fromarray((upright_mask() // 255).astype(np.uint16)),
        Image.fromarray(np.stack([0 * upright_mask(), 0 * upright_mask(), upright_mask() // 2], 2)),  # dark blue label
        Image.fromarray(np.dstack([picture(), upright_mask()])),  # cut-out
    ],
    ids=["grey", "zero-one", "bit", "sixteen", "label", "alpha"],
)
def test_black_is_ignored_however_a_mask_is_written(tmp_path, image):
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png", (144, 96)), upright_mask())


def test_jpeg_noise_stays_black(tmp_path):
    Image.fromarray(upright_mask()).save(tmp_path / "m.jpg", quality=60)
    assert (load_mask(tmp_path / "m.jpg", (144, 96)) == upright_mask()).mean() > 0.999
    Image.fromarray(np.full((96, 144), 3, np.uint8)).save(tmp_path / "black.jpg")
    assert not load_mask(tmp_path / "black.jpg", (144, 96)).any()


# -- the real ones ---------------------------------------------------------------------------------------------------


def test_all_eight_orientations_of_real_photos_agree():
    folder = Path("../shared/data/bad_inputs/exif-samples/orientation")
    if not folder.is_dir():
        pytest.skip("real photo sets are not here")
    for kind, size in (("landscape", (450, 600)), ("portrait", (600, 450))):
        upright = [load_upright(folder / f"{kind}_{i}.jpg").astype(float).mean(2) for i in ALL]
        assert {u.shape for u in upright} == {size}
        for other in upright[2:]:  # the first is another encoding of the scene, in another colour balance
            assert np.abs(other - upright[1]).mean() < 6
        assert np.corrcoef(upright[0].ravel(), upright[1].ravel())[0, 1] > 0.95
