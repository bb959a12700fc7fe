"""EXIF facts: focal length in pixels of the file as it is, GPS, camera, time; broken values are unknown."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from quoin.pipeline.imaging.io import open_image
from quoin.stages.ingest.exif import Exif, exif_focal_px, read_exif

DATA = Path("../shared/data")


def read(tmp_path, details=None, gps=None, tags=None, size=(400, 300)) -> Exif:
    exif = Image.Exif()
    exif.update(tags or {})
    exif.get_ifd(IFD.Exif).update(details or {})
    exif.get_ifd(IFD.GPSInfo).update(gps or {})
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    with open_image(tmp_path / "a.jpg") as image:
        return read_exif(image)


def test_no_exif_is_all_unknown(tmp_path):
    exif = read(tmp_path)
    assert (exif.camera, exif.taken_at) == ("", "")
    numbers = [exif.focal_px, exif.focal_mm, exif.latitude_deg, exif.longitude_deg, exif.altitude_m]
    assert all(math.isnan(number) for number in numbers)


# -- focal length ----------------------------------------------------------------------------------------------------


def test_the_equivalent_is_by_the_diagonal(tmp_path):
    """On a 3:2 file 36 mm of film lie along the width; on 4:3 the diagonal decides: 50 mm see a 5000 px diagonal so."""
    assert read(tmp_path, {Base.FocalLengthIn35mmFilm: 36}, size=(600, 400)).focal_px == pytest.approx(600)
    assert exif_focal_px((4000, 3000), equivalent_mm=math.hypot(36, 24)) == pytest.approx(5000)


@given(st.integers(1, 8), st.booleans())
def test_a_shrunk_or_turned_file_has_the_same_field_of_view(factor, turned):
    size = (4000 // factor, 3000 // factor)
    size = size[::-1] if turned else size
    kept = {"focal_mm": 5.0, "pixels_per_mm": 4000 / 6.4, "recorded_size": (4000, 3000)}
    assert exif_focal_px(size, **kept) == pytest.approx(5.0 / 6.4 * 4000 / factor, rel=0.01)
    kept["equivalent_mm"] = 28.0
    assert exif_focal_px(size, **kept) / max(size) == pytest.approx(28 / 43.2666 * 1.25, rel=0.01)


def test_focal_plane_resolution(tmp_path):
    """The Canon PowerShot A10 of the Bundler photos: 640 px over 5.23 mm, 5.40625 mm lens."""
    details = {
        Base.FocalLength: 5.40625,
        Base.FocalPlaneXResolution: 3106.796,
        Base.FocalPlaneResolutionUnit: 2,
        Base.ExifImageWidth: 640,
        Base.ExifImageHeight: 480,
    }
    assert read(tmp_path, details, size=(640, 480)).focal_px == pytest.approx(661.26, abs=0.1)
    assert read(tmp_path, details, size=(320, 240)).focal_px == pytest.approx(330.63, abs=0.1)
    centimetres = details | {Base.FocalPlaneXResolution: 3106.796 / 2.54, Base.FocalPlaneResolutionUnit: 3}
    assert read(tmp_path, centimetres, size=(640, 480)).focal_px == pytest.approx(661.26, abs=0.1)


def test_a_cropped_file_has_no_known_focal_length():
    assert math.isnan(exif_focal_px((3000, 3000), equivalent_mm=28.0, recorded_size=(4000, 3000)))
    assert not math.isnan(exif_focal_px((1600, 1202), equivalent_mm=35.0, recorded_size=(2832, 2128)))


@pytest.mark.parametrize(
    ("focal_mm", "pixels_per_inch", "width"),
    [(55, 4720.44, 1200), (250, 3818.78, 1200), (14.3, 6992 * 2.54, 1200), (35, 6514.66, 1200), (29.2, 11412.6, 1200)],
)
def test_a_file_shrunk_by_software_that_rewrote_its_size_is_not_believed(focal_mm, pixels_per_inch, width):
    """As found in photos of the Statue of Liberty: SLRs whose sensor would be 4 to 8 mm wide, compacts with 2 mm."""
    got = exif_focal_px(
        (800, width), focal_mm=focal_mm, pixels_per_mm=pixels_per_inch / 25.4, recorded_size=(800, width)
    )
    assert math.isnan(got)


@pytest.mark.parametrize("value", [0, -5, 60000])
def test_senseless_focal_lengths_are_unknown(tmp_path, value):
    assert math.isnan(exif_focal_px((400, 300), equivalent_mm=float(value)))


# -- GPS -------------------------------------------------------------------------------------------------------------


def test_position_and_altitude(tmp_path):
    gps = {
        GPS.GPSLatitudeRef: "S",
        GPS.GPSLatitude: (8.0, 18.0, 14.22),
        GPS.GPSLongitudeRef: "W",
        GPS.GPSLongitude: (115.0, 29.0, 2.94),
        GPS.GPSAltitudeRef: b"\x01",
        GPS.GPSAltitude: 12.5,
    }
    exif = read(tmp_path, gps=gps)
    assert exif.latitude_deg == pytest.approx(-(8 + 18 / 60 + 14.22 / 3600), abs=1e-6)
    assert exif.longitude_deg == pytest.approx(-(115 + 29 / 60 + 2.94 / 3600), abs=1e-6)
    assert exif.altitude_m == pytest.approx(-12.5)
    north_east = gps | {GPS.GPSLatitudeRef: "N", GPS.GPSLongitudeRef: "E", GPS.GPSAltitudeRef: b"\x00"}
    exif = read(tmp_path, gps=north_east)
    assert exif.latitude_deg > 0
    assert exif.longitude_deg > 0
    assert exif.altitude_m > 0


@pytest.mark.parametrize(
    "broken",
    [
        {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
        {GPS.GPSLongitude: (181.0, 0.0, 0.0)},
        {GPS.GPSLatitude: (IFDRational(1, 0), 0.0, 0.0)},
        {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)},
        {GPS.GPSLatitude: ()},
        {GPS.GPSLongitude: (1.0, 2.0, 3.0, 4.0)},
    ],
)
def test_a_broken_position_is_unknown_as_a_whole(tmp_path, broken):
    exif = read(tmp_path, gps={GPS.GPSLatitude: (8.0, 0.0, 0.0), GPS.GPSLongitude: (9.0, 0.0, 0.0)} | broken)
    assert math.isnan(exif.latitude_deg)
    assert math.isnan(exif.longitude_deg)


# -- camera and time -------------------------------------------------------------------------------------------------


def test_camera_is_one_clean_string(tmp_path):
    tags = {Base.Make: "Canon\0\0", Base.Model: "Canon EOS 40D "}
    assert read(tmp_path, {Base.LensModel: "EF 50 mm\n\x07"}, tags=tags).camera == "Canon EOS 40D (EF 50 mm)"
    assert read(tmp_path, tags={Base.Make: "DJI", Base.Model: "FC8482"}).camera == "DJI FC8482"


def test_time(tmp_path):
    details = {Base.DateTimeOriginal: "2008:05:30 15:56:01", Base.SubsecTimeOriginal: "25"}
    assert read(tmp_path, details).taken_at == "2008-05-30T15:56:01.25"
    assert read(tmp_path, tags={Base.DateTime: "2001:02:03 04:05:06"}).taken_at == "2001-02-03T04:05:06"
    assert read(tmp_path, {Base.DateTimeOriginal: "    :  :     :  :  "}).taken_at == ""
    assert read(tmp_path, {Base.DateTimeOriginal: "1999:99:99 99:99:99"}).taken_at == ""


@given(st.binary(max_size=200))
def test_any_bytes_as_exif_are_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("exif") / "a.jpg"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0" + data)
    with open_image(path) as image:
        exif = read_exif(image)
    assert math.isnan(exif.latitude_deg) or abs(exif.latitude_deg) <= 90
    assert math.isnan(exif.focal_px) or 8 < exif.focal_px < 2000
    assert exif.camera.isprintable()


# -- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "focal", "tolerance"),
    [
        ("sceaux_castle/images/100_7100.JPG", 2905.88 * 1600 / 2832, 0.02),  # calibrated
        ("bundler_et/et000.jpg", 661.0, 0.01),  # as Bundler's sensor list has it
        ("seneca/images/IMG_0446.jpg", 4.3 / 6.2 * 1000, 0.01),  # sensor 6.2 mm wide
        ("monstree/images/IMG_1025.JPG", 3.99 / 4.92 * 1200, 0.01),  # iPhone 7: 4032 pixels of 1.22 µm
    ],
)
def test_focal_lengths_of_real_files(name, focal, tolerance):
    if not (DATA / name).exists():
        pytest.skip("real photo sets are not here")
    with open_image(DATA / name) as image:
        assert read_exif(image).focal_px == pytest.approx(focal, rel=tolerance)


def test_gps_of_a_real_file():
    path = DATA / "bad_inputs/exif-samples/gps/DSCN0010.jpg"
    if not path.exists():
        pytest.skip("real photo sets are not here")
    with open_image(path) as image:
        exif = read_exif(image)
    assert (exif.latitude_deg, exif.longitude_deg) == pytest.approx((43.467448, 11.885127), abs=1e-5)


def test_rationals_of_any_kind_are_numbers():
    from quoin.stages.ingest.exif import _float_or_nan

    assert _float_or_nan(IFDRational(7, 2)) == 3.5
    assert _float_or_nan((Fraction(7, 2),)) == 3.5
    assert _float_or_nan("3.5") == 3.5
    assert all(math.isnan(_float_or_nan(v)) for v in (None, "", (), b"\x01\x02", IFDRational(0, 0), float("inf")))
