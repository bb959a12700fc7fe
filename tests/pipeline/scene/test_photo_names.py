"""Names that other programs give to photos: which photo each means."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.photo_names import fit_names, match_names


def test_names_match_from_the_end() -> None:
    photos = ["left/0001.jpg", "right/0001.jpg", "right/0002.jpg"]
    assert match_names(["../x/left/0001.jpg", "0002", "0003"], photos) == {0: 0, 1: 2}
    with pytest.raises(QuoinError, match="fits 2 photos"):
        match_names(["0001.jpg"], photos)
    with pytest.raises(QuoinError, match="the same photo"):
        match_names(["a/0002.jpg", "b/0002.jpg"], photos)


def test_the_pose_of_a_photo_that_is_left_out_is_nobody_else_s() -> None:
    used, others = ["right/0001.jpg", "right/0002.jpg"], ["left/0001.jpg", "small/0002.jpg"]
    assert match_names(["left/0001.jpg", "right/0002.jpg"], used, others) == {1: 1}
    assert match_names(["left/0001.jpg", "right/0001.jpg"], used, others) == {1: 0}
    assert match_names(["0001.jpg", "images/0002"], used, others) == {0: 0, 1: 1}, "of two that fit, the one there is"


def test_two_cards_with_the_same_names_of_which_photos_were_deleted() -> None:
    names = [f"{card}MEDIA/DJI_{n:04d}.jpg" for card in (100, 101) for n in range(1, 6)]
    photos = [name for name in names if name not in ("101MEDIA/DJI_0004.jpg", "101MEDIA/DJI_0005.jpg")]
    assert match_names(names, photos) == {names.index(photo): photos.index(photo) for photo in photos}
    fewer = [name for name in names if name not in ("100MEDIA/DJI_0004.jpg", "100MEDIA/DJI_0005.jpg")]
    matched = match_names(fewer, photos)
    assert len(matched) == 6
    assert all(fewer[row] == photos[photo] for row, photo in matched.items())
    one_card = [name for name in photos if name.startswith("100")]  # all of the other card was deleted
    assert match_names(names, one_card) == {i: i for i in range(5)}


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("images/a.jpg", "a.jpg"),
        ("a.jpg", "photos/a.jpg"),
        ("images/a.jpg", "photos/a.png"),
        ("./images/r_000", "r_000.png"),
        ("C:\\scan\\Left\\A.JPG", "left/a.jpg"),
        (unicodedata.normalize("NFD", "Südtor.jpg"), unicodedata.normalize("NFC", "Südtor.jpg")),
        (unicodedata.normalize("NFC", "Südtor.jpg"), unicodedata.normalize("NFD", "Südtor.jpg")),
        ("East side/photo (1).jpg ", "East side/photo (1).jpg"),
        ("scene/v1.2", "v1.2.jpg"),
    ],
)
def test_spellings_of_one_name(name: str, photo: str) -> None:
    assert match_names([name], [photo, "elsewhere/b.jpg"]) == {0: 0}


@pytest.mark.parametrize(
    ("names", "photos"),
    [
        (["left/1.jpg"], ["1.jpg", "left/2.jpg"]),  # left has no 1.jpg any more
        (["1.jpg", "left/2.jpg"], ["left/1.jpg"]),  # of the files without a folder none is there
        (["frame.12"], ["frame.jpg"]),  # 12 is no ending of a file
        (["a/1.jpg"], ["b/1.jpg", "a/2.jpg"]),
    ],
)
def test_names_of_photos_that_are_not_there(names: list[str], photos: list[str]) -> None:
    assert 0 not in match_names(names, photos)


def test_case_decides_between_photos_that_differ_in_nothing_else() -> None:
    assert match_names(["x/A.jpg", "x/a.jpg"], ["a.jpg", "A.jpg"]) == {0: 1, 1: 0}
    assert fit_names(["x/a.JPG"], ["a.jpg", "A.jpg"]) == [[0, 1]]


PATHS = st.text(alphabet="ab./\\ ÅåA\u030a", max_size=8)


@given(st.lists(PATHS, max_size=6), st.lists(PATHS, max_size=6), st.lists(PATHS, max_size=3))
def test_any_names_fit_photos_that_are_used(names: list[str], photos: list[str], unused: list[str]) -> None:
    fitting = fit_names(names, photos, unused)
    assert len(fitting) == len(names)
    assert all(0 <= photo < len(photos) for photos_of_name in fitting for photo in photos_of_name)
