"""Masks find their photos under every usual name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.stages.ingest.mask_files import is_in_mask_folder, match_masks, match_sidecar_masks

NAMINGS = ["{stem}.jpg.png", "{stem}.png", "{stem}_mask.png", "mask_{stem}.png", "{stem}.mask.png", "{stem}-mask.jpg"]
NAMINGS += ["{stem}.jpg", "{stem}.JPG.PNG", "{stem}.jpg.mask.png", "MASK_{stem}.tif", "{stem}_masks.jpeg"]
STEMS = st.text("abIMG01_ -.é塔\n", min_size=1, max_size=12).filter(lambda s: s.strip(". ") == s)


@given(STEMS, st.sampled_from(NAMINGS), st.sampled_from(["masks", "mask", "Masks"]), st.sampled_from(["", "one/two/"]))
def test_every_naming_inside_and_beside(stem, naming, folder, sub):
    photo = f"set/photos/{sub}{stem}.jpg"
    for place in (f"set/{folder}/photos/{sub}", f"set/{folder}/{sub}", f"set/photos/{folder}/{sub}"):
        mask = place + naming.format(stem=stem)
        assert match_masks([photo], [mask]) == {photo: mask}
        assert is_in_mask_folder(mask)


@given(STEMS, st.sampled_from([n for n in NAMINGS if n not in ("{stem}.png", "{stem}.jpg")]))
def test_every_telling_name_next_to_the_photo(stem, naming):
    photo, mask = f"photos/{stem}.jpg", f"photos/{naming.format(stem=stem)}"
    assert match_sidecar_masks([photo, mask]) == {mask: photo}


def test_a_photo_of_another_suffix_is_no_mask():
    assert match_sidecar_masks(["p/a.jpg", "p/a.png", "p/mask.jpg", "p/mask_b.png", "p/a.txt"]) == {}


def test_each_photo_its_own():
    photos = [f"photos/{i}.jpg" for i in range(20)] + ["photos/sub/1.jpg"]
    masks = [f"masks/{i}.png" for i in range(20)] + ["masks/sub/1.png"]
    assert match_masks(photos, masks) == dict(zip(photos, masks, strict=True))


def test_the_plain_name_wins_over_a_decorated_one():
    masks = ["masks/mask_1.png", "masks/1.png"]
    assert match_masks(["photos/1.jpg", "photos/mask_1.jpg"], masks) == {
        "photos/1.jpg": "masks/1.png",
        "photos/mask_1.jpg": "masks/mask_1.png",
    }


def test_the_full_name_tells_photos_of_one_stem_apart():
    masks = ["masks/a.jpg.png", "masks/a.png.png"]
    assert match_masks(["p/a.jpg", "p/a.png"], masks) == {"p/a.jpg": masks[0], "p/a.png": masks[1]}


def test_the_nearest_folder_wins():
    masks = ["masks/a/1.png", "photos/a/masks/1.png"]
    assert match_masks(["photos/a/1.jpg", "photos/1.jpg"], masks) == {"photos/a/1.jpg": masks[1]}


def test_numbers_of_another_width():
    photos = [f"scan/image/{i:06d}.jpg" for i in range(49)]
    masks = [f"scan/mask/{i:03d}.png" for i in range(49)]
    assert match_masks(photos, masks) == dict(zip(photos, masks, strict=True))
    assert match_masks(["p/01.jpg", "p/001.jpg"], ["masks/1.png"]) == {}  # whose is it?


@pytest.mark.parametrize("mask", ["masks/b.png", "masks/a1.png", "other/a.png", "masks/sub/a.png"])
def test_others_do_not_match(mask):
    assert match_masks(["photos/a.jpg"], [mask]) == {}


def test_accents_match_in_either_form():
    assert match_masks(["p/caf\u00e9.jpg"], ["masks/cafe\u0301.png"]) == {"p/caf\u00e9.jpg": "masks/cafe\u0301.png"}
