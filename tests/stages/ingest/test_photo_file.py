"""One file: content hash, contrast, borders, hash, sharpness, panoramas, and how many pixels are held at once."""

from __future__ import annotations

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD, Base
from scipy.ndimage import gaussian_filter, uniform_filter1d

from quoin.pipeline.imaging.io import PixelBudget
from quoin.stages.ingest.duplicates import MAX_HASH_DISTANCE
from quoin.stages.ingest.photo_file import (
    GRAY_EDGE_PX,
    NO_BORDER,
    content_hash,
    find_borders,
    gray_thumbnail,
    image_signature,
    is_equirectangular,
    perceptual_hash,
    photo_contrast,
    photo_sharpness,
    read_panorama_tag,
)
from tests.fixtures.image_files import picture
from tests.stages.ingest.scenes import as_rgb, saved, texture, view

PHOTO = as_rgb(texture(1, 240, 320))
MARGIN = 2
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description GPano:ProjectionType{}/></x:xmpmeta>'


def test_the_hash_is_of_pixels_and_their_arrangement():
    one = picture(1)
    assert content_hash(one) == content_hash(one.copy())
    assert content_hash(one) != content_hash(picture(2))
    assert content_hash(one) != content_hash(one.reshape(144, 96, 3))  # the same bytes
    other = one.copy()
    other[50, 50, 1] ^= 1
    assert content_hash(one) != content_hash(other)


def test_contrast_sees_structure_and_not_noise():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 16, (1024, 1024, 3)).astype(np.uint8)
    assert photo_contrast(noise) < 1 < noise.std()
    halves = np.zeros((1024, 1024, 3), np.uint8)
    halves[:, 512:] = 200
    assert abs(photo_contrast(halves) - 100) < 1  # half 0, half 200: standard deviation 100
    assert photo_contrast(picture(0, 1024, 1024)) > 10
    assert photo_contrast(np.full((3, 5, 3), 77, np.uint8)) == 0


def test_threads_never_hold_more_than_the_budget_but_one_may_alone():
    budget, lock = PixelBudget(100), threading.Lock()
    held: list[int] = []
    seen: list[list[int]] = []

    def work(pixels: int) -> None:
        with budget.reserve(pixels):
            with lock:
                held.append(pixels)
                seen.append(list(held))
            time.sleep(0.001)
            with lock:
                held.remove(pixels)

    sizes = [int(n) for n in np.random.default_rng(0).integers(10, 60, 60)] + [500, 100, 101]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, sizes))
    assert len(seen) == len(sizes)
    assert all(sum(together) <= 100 or len(together) == 1 for together in seen)
    assert max(len(together) for together in seen) > 1


def framed(left: int, top: int, right: int, bottom: int, colour: int = 255) -> np.ndarray:
    return np.pad(PHOTO, ((top, bottom), (left, right), (0, 0)), constant_values=colour)


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.integers(3, 40)] * 4), st.sampled_from([0, 255]))
def test_a_frame_is_found_to_the_pixel(sides, colour):
    assert find_borders(framed(*sides, colour)) == tuple(side + MARGIN for side in sides)


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.integers(12, 40)] * 4), st.sampled_from([0, 255]))
def test_a_frame_is_found_after_jpeg(sides, colour):
    found = find_borders(saved(framed(*sides, colour), 80))
    assert all(side <= cut <= side + 2 * MARGIN for cut, side in zip(found, sides, strict=True))


@pytest.mark.parametrize("sides", [(0, 60, 0, 60), (120, 0, 120, 0), (8, 0, 0, 0), (0, 0, 0, 20)])
def test_letterboxes_and_single_bars(sides):
    found = find_borders(framed(*sides, 0))
    assert found == tuple(side + MARGIN if side else 0 for side in sides)


def test_a_photo_without_a_frame():
    assert find_borders(PHOTO) == NO_BORDER
    assert find_borders(np.full((100, 120, 3), 7, np.uint8)) == NO_BORDER
    assert find_borders(np.zeros((1, 1, 3), np.uint8)) == NO_BORDER


def test_skies_and_nights_end_in_no_straight_line():
    for level in (0, 255):
        sky = PHOTO.copy()
        hills = 30 + 12 * np.sin(np.arange(320) / 40.0)
        sky[np.arange(240)[:, None] < hills] = level
        assert find_borders(sky) == NO_BORDER


def test_a_wall_that_darkens_slowly_is_no_bar():
    wall = PHOTO.copy()
    fade = np.clip((np.arange(240) - 20.0) / 40.0, 0.0, 1.0)[:, None, None]
    assert find_borders((250 * (1 - fade) + wall * fade).astype(np.uint8)) == NO_BORDER


def test_a_white_sky_above_a_level_sea_is_too_high_for_a_single_bar():
    photo = PHOTO.copy()
    photo[:80] = 255
    assert find_borders(photo) == NO_BORDER


def test_bars_of_two_colours_are_no_letterbox():
    photo = framed(0, 60, 0, 0, 0)
    photo = np.pad(photo, ((0, 60), (0, 0), (0, 0)), constant_values=255)
    assert find_borders(photo) == NO_BORDER


def apart(first: np.ndarray, second: np.ndarray) -> int:
    return (image_signature(first).bits ^ image_signature(second).bits).bit_count()


def test_the_grey_copy_is_small_and_keeps_the_shape():
    assert gray_thumbnail(np.zeros((1000, 2000, 3), np.uint8)).shape == (GRAY_EDGE_PX // 2, GRAY_EDGE_PX)
    assert gray_thumbnail(np.zeros((30, 20, 3), np.uint8)).shape == (30, 20)
    assert gray_thumbnail(np.zeros((2000, 1, 3), np.uint8)).shape == (GRAY_EDGE_PX, 1)


def test_hashes_of_one_picture_are_near_and_of_two_far_apart():
    photo = view(0.0)
    for other in (saved(photo, 30), photo[:291, 12:], as_rgb(255.0 * (photo[..., 0] / 255.0) ** 1.8)):
        assert apart(photo, other) <= MAX_HASH_DISTANCE
    others = [image_signature(as_rgb(texture(i, 150, 200))).bits for i in range(12)]
    apart_of_others = [(a ^ b).bit_count() for a, b in itertools.combinations(others, 2)]
    assert np.mean(apart_of_others) == pytest.approx(32, abs=3)
    assert min(apart_of_others) > MAX_HASH_DISTANCE
    assert perceptual_hash(np.zeros((20, 30), np.float32)) == 0


def test_sharpness_falls_with_blur_and_not_with_contrast_or_exposure():
    grey = gaussian_filter(np.kron(np.random.default_rng(0).integers(0, 2, (25, 32)), np.ones((16, 16))), 0.5)
    photo = (40.0 + 150.0 * grey).astype(np.float32)
    values = [photo_sharpness(gaussian_filter(photo, blur).astype(np.float32)) for blur in (0.1, 1.0, 2.0, 4.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.15
    assert values[-1] < 0.03
    assert photo_sharpness(0.5 * photo) == pytest.approx(values[0], rel=1e-3)


def test_motion_and_a_blurred_background_are_told_apart():
    photo = texture(1, 384, 512)
    sharp = photo_sharpness(photo.astype(np.float32))
    moved = uniform_filter1d(photo, 21, axis=1)
    assert photo_sharpness(moved.astype(np.float32)) < 0.35 * sharp
    portrait = gaussian_filter(photo, 5.0)
    portrait[:, 180:330] = photo[:, 180:330]
    assert photo_sharpness(portrait.astype(np.float32)) > 0.7 * sharp


def test_where_there_are_no_edges_sharpness_is_unknown():
    assert math.isnan(photo_sharpness(np.full((300, 400), 80.0, np.float32)))
    assert math.isnan(photo_sharpness(np.zeros((40, 500), np.float32)))
    slope = np.repeat(np.linspace(0, 255, 400, dtype=np.float32)[None], 300, axis=0)
    assert math.isnan(photo_sharpness(slope))


def tag_of(path: Path, **options) -> str:
    Image.fromarray(picture(1)).save(path, **options)
    with Image.open(path) as image:
        image.load()
        return read_panorama_tag(image)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_gpano_in_xmp(tmp_path, suffix):
    def tag(text: str) -> str:
        xmp = XMP.format(text).encode()
        if suffix == "tif":
            return tag_of(tmp_path / "a.tif", tiffinfo={700: xmp})
        return tag_of(tmp_path / f"a.{suffix}", xmp=xmp)

    assert tag('="equirectangular"') == "equirectangular"
    assert tag(">Cylindrical</GPano:ProjectionType") == "cylindrical"
    assert tag('="perspective"') == ""
    assert tag("") == ""


def test_panoramas_of_iphones(tmp_path):
    exif = Image.Exif()
    exif[Base.Make] = "Apple"
    exif.get_ifd(IFD.Exif)[Base.CustomRendered] = 6
    assert tag_of(tmp_path / "a.jpg", exif=exif) == "panorama"
    exif.get_ifd(IFD.Exif)[Base.CustomRendered] = 2
    assert tag_of(tmp_path / "b.jpg", exif=exif) == ""
    assert tag_of(tmp_path / "c.jpg") == ""


def all_round(height: int = 200) -> np.ndarray:
    """A smooth picture on a sphere, twice as wide as high."""
    rng = np.random.default_rng(3)
    longitude, latitude = np.meshgrid(
        np.linspace(-np.pi, np.pi, 2 * height, endpoint=False), np.linspace(np.pi / 2, -np.pi / 2, height)
    )
    sphere = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1
    )
    waves = sum(np.sin(sphere @ (rng.normal(size=3) * k) + rng.uniform(0, 6)) / k**0.5 for k in range(2, 14))
    return np.repeat(np.clip(128 + 40 * waves, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_a_picture_of_all_round_is_known_by_its_shape_its_seam_and_its_poles():
    picture = all_round()
    assert is_equirectangular(picture)
    assert is_equirectangular(np.roll(picture, 77, axis=1)), "wherever its seam is"
    assert not is_equirectangular(picture[:, 8:-8]), "not twice as wide as high"
    assert not is_equirectangular(picture[:150, 50:350]), "an ordinary photo of that shape: the sides do not join"
    assert not is_equirectangular(picture[::-1].transpose(1, 0, 2)[:200, :]), "upright"
    assert not is_equirectangular(np.tile(picture[50:150], (1, 1, 1))[:, ::2][:, :200]), "no poles"
    level = np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[:, None, None], 400, axis=1).repeat(3, axis=2)
    assert not is_equirectangular(level), "a sky that gets darker: alike at both sides, but nothing that joins"
