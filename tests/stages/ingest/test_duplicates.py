"""One picture saved in another way, or two pictures of one thing; and one of many, found with few comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from quoin.stages.ingest.duplicates import (
    MAX_CANDIDATES,
    MAX_HASH_DISTANCE,
    find_near_duplicates,
    is_same_picture,
    texture_pyramid,
)
from quoin.stages.ingest.photo_file import gray_thumbnail
from tests.stages.ingest.scenes import as_rgb, saved, texture, view


def same(first: np.ndarray, second: np.ndarray) -> bool:
    answer = is_same_picture(texture_pyramid(gray_thumbnail(first)), texture_pyramid(gray_thumbnail(second)))
    assert answer == is_same_picture(texture_pyramid(gray_thumbnail(second)), texture_pyramid(gray_thumbnail(first)))
    return answer


def resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def marked(rgb: np.ndarray) -> np.ndarray:
    image = Image.fromarray(rgb)
    ImageDraw.Draw(image).text((40, 120), "A STRANGER", fill="white", font_size=50)
    return np.asarray(image)


PHOTO = saved(view(0.0), 95)
VARIANTS = {
    "itself": PHOTO,
    "compressed": saved(PHOTO, 30),
    "half": resized(PHOTO, 200, 150),
    "larger": resized(PHOTO, 1000, 750),
    "cut at two sides": PHOTO[:291, 12:],
    "cut and resized": resized(PHOTO[4:296, 6:394], 400, 300),
    "marked": marked(PHOTO),
    "gamma": as_rgb(255.0 * (PHOTO[..., 0] / 255.0) ** 1.8),
    "brighter": as_rgb(PHOTO[..., 0] * 1.4),
    "all at once": saved(as_rgb(255.0 * (resized(PHOTO[5:, :390], 260, 197)[..., 0] / 255.0) ** 0.7), 50),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_one_picture_however_it_was_saved(kind):
    assert same(PHOTO, VARIANTS[kind])


def test_a_still_camera_takes_one_picture_and_a_step_is_another():
    """The things shift against the wall by 0.8 of the step. With larger steps they match nowhere but the wall does."""
    assert same(view(0.0), view(0.0, noise=4.0))
    for step in (0.8, 1.5, 4.0, 6.0, 9.0, 14.0):
        assert not same(view(0.0), view(step)), step


def test_one_thing_that_moves_before_a_far_wall():
    """It covers a tenth of the photo, as a watermark may, but is found again beside its place."""
    thing, wall = texture(3), texture(4)

    def photo(at: int) -> np.ndarray:
        image = wall.copy()
        image[100:196, at : at + 96] = thing[100:196, 100:196]
        return as_rgb(image)

    assert same(photo(150), saved(photo(150), 60))
    assert not same(photo(150), photo(158))


def test_a_camera_that_turned_shows_something_new():
    wide = texture(5, 320, 500)
    for turn in (4, 10, 30):
        assert not same(as_rgb(wide[10:310, :400]), as_rgb(wide[10:310, turn : turn + 400])), turn
    assert same(as_rgb(wide[10:310, :400]), as_rgb(wide[10:310, 1:401]))  # a pixel of 400 is within how files are cut


def test_a_turn_about_the_line_of_sight_is_another_picture():
    turned = np.asarray(Image.fromarray(PHOTO).rotate(1.5, Image.Resampling.BICUBIC))
    assert not same(PHOTO[20:280, 20:380], turned[20:280, 20:380])


def test_others_and_those_without_texture_are_not_the_same():
    assert not same(PHOTO, as_rgb(texture(9)))
    assert not same(PHOTO, PHOTO[:, ::-1])
    flat = np.full((300, 400, 3), 90, np.uint8)
    assert not same(flat, flat)
    assert not same(PHOTO, flat)
    tiny = np.full((3, 1, 3), 9, np.uint8)
    assert not same(tiny, tiny)


def hashes(count: int, seed: int = 0) -> list[int]:
    return [int(h) for h in np.random.default_rng(seed).integers(0, 2**63, count, dtype=np.uint64)]


def flipped(bits: int, which: list[int]) -> int:
    for bit in which:
        bits ^= 1 << int(bit)
    return bits


def test_every_hash_within_eleven_bits_is_found():
    rng = np.random.default_rng(1)
    base = hashes(1)[0]
    for _ in range(200):
        other = flipped(base, rng.choice(64, 11, replace=False))
        assert find_near_duplicates({0: base, 1: other}, [0, 1], lambda a, b: True) == {1: 0}
    far = flipped(base, list(range(MAX_HASH_DISTANCE + 1)))
    assert find_near_duplicates({0: base, 1: far}, [0, 1], lambda a, b: True) == {}


def test_work_grows_with_the_number_of_photos_only():
    """3000 photos that look different and 300 copies: hardly more comparisons than copies."""
    own = hashes(3000)
    bits = dict(enumerate(own + [flipped(h, [3, 30, 60]) for h in own[:300]]))
    asked = []

    def same(one: int, other: int) -> bool:
        asked.append((one, other))
        return other - one == 3000

    assert find_near_duplicates(bits, range(3300), same) == {3000 + i: i for i in range(300)}
    assert 300 <= len(asked) < 350


def test_a_still_camera_costs_one_comparison_a_frame():
    asked = []
    dropped = find_near_duplicates(dict.fromkeys(range(500), 77), range(500), lambda a, b: asked.append(b) is None)
    assert dropped == dict.fromkeys(range(1, 500), 0)
    assert len(asked) == 499


def test_photos_of_one_look_but_different_cost_a_few_comparisons_each():
    asked = []
    assert find_near_duplicates(dict.fromkeys(range(50), 77), range(50), lambda a, b: asked.append(b) is not None) == {}
    assert len(asked) <= 50 * MAX_CANDIDATES


def test_of_a_slow_film_each_frame_kept_has_moved_against_all_others_kept():
    """Neighbours are alike, frames three apart are not: a chain must not be drawn together."""
    dropped = find_near_duplicates(dict.fromkeys(range(12), 5), range(12), lambda a, b: abs(a - b) < 3)
    kept = [i for i in range(12) if i not in dropped]
    assert kept == [0, 3, 6, 9]
    assert all(abs(i - twin) < 3 and twin in kept for i, twin in dropped.items())


def test_the_better_photo_stays():
    assert find_near_duplicates({4: 1, 9: 1, 2: 3}, [9, 2, 4], lambda a, b: True) == {2: 9, 4: 9}
