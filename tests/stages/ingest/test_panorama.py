"""What no single view can show."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from quoin.stages.ingest.panorama import find_too_wide, read_panorama_tag
from tests.fixtures.image_files import picture

XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description GPano:ProjectionType{}/></x:xmpmeta>'


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


def test_wide_photos_unless_most_are():
    normal, wide, high = (400, 300), (900, 300), (300, 900)
    assert find_too_wide([normal, wide, high, normal, normal], 2.5) == [False, True, True, False, False]
    assert find_too_wide([normal, wide, wide, wide], 2.5) == [False] * 4  # a camera such as those on cars
    assert find_too_wide([normal, (750, 300)], 2.5) == [False, False]
    assert find_too_wide([], 2.5) == []
