"""Reader of a photo's EXIF; what is missing or corrupt is NaN or "", and nothing raises."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
RESOLUTION_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, µm


@dataclass(frozen=True)
class Exif:
    """EXIF facts of a photo; NaN or "" where unknown."""

    camera: str = ""
    taken_at: str = ""
    focal_px: float = math.nan
    focal_mm: float = math.nan  # of the lens, whatever the sensor
    latitude_deg: float = math.nan
    longitude_deg: float = math.nan
    altitude_m: float = math.nan
    exposure_bias_ev: float = math.nan  # stops above what the camera metered, as photographer or bracketing asked for
    exposure_ev: float = math.nan  # log2 of time * ISO / aperture²: how bright the photo shows the same scene, in stops


def read_exif(image: Image.Image) -> Exif:
    """EXIF of an opened image, with the focal length in pixels of the file."""
    tags, exif_tags, gps = _read_tags(image)
    latitude_deg, longitude_deg = _gps_position(gps)
    focal_mm = _float_or_nan(exif_tags.get(Base.FocalLength))
    return Exif(
        camera=_camera_name(tags, exif_tags),
        taken_at=_taken_at(tags, exif_tags),
        focal_px=exif_focal_px(
            image.size,
            equivalent_mm=_float_or_nan(exif_tags.get(Base.FocalLengthIn35mmFilm)),
            focal_mm=focal_mm,
            pixels_per_mm=_float_or_nan(exif_tags.get(Base.FocalPlaneXResolution))
            / RESOLUTION_UNIT_MM.get(
                _int_or_default(exif_tags.get(Base.FocalPlaneResolutionUnit), default=2), math.nan
            ),
            recorded_size=(
                _int_or_default(exif_tags.get(Base.ExifImageWidth)),
                _int_or_default(exif_tags.get(Base.ExifImageHeight)),
            ),
        ),
        focal_mm=focal_mm,
        latitude_deg=latitude_deg,
        longitude_deg=longitude_deg,
        altitude_m=_altitude_m(gps),
        exposure_bias_ev=_float_or_nan(exif_tags.get(Base.ExposureBiasValue)),
        exposure_ev=_exposure_ev(exif_tags),
    )


def exif_focal_px(
    size: tuple[int, int],
    *,
    equivalent_mm: float = math.nan,
    focal_mm: float = math.nan,
    pixels_per_mm: float = math.nan,
    recorded_size: tuple[int, int] = (0, 0),
) -> float:
    """Focal length in pixels of a file of ``size``; NaN where EXIF is not sufficient or implausible.

    The 35 mm equivalent is taken by the diagonal, as CIPA DCG-001 defines it; by the width an iPhone 7 would be off by
    4 %, the Sceaux camera by 5 %. It holds at any resolution. Without it, ``focal_mm * pixels_per_mm`` counts pixels of
    the original (``recorded_size``) and is scaled to the file. A file of another shape than recorded was cropped: NaN.
    """
    long, short = max(size), min(size)
    recorded_long, recorded_short = max(recorded_size), min(recorded_size)
    if recorded_short > 0 and abs(long * recorded_short - short * recorded_long) > 0.02 * long * recorded_long:
        return math.nan
    if equivalent_mm > 0:
        focal = equivalent_mm / FULL_FRAME_DIAGONAL_MM * math.hypot(*size)
    elif focal_mm > 0 and pixels_per_mm > 0:
        original_long = recorded_long if recorded_short > 0 else long
        if not _sensor_is_plausible(original_long / pixels_per_mm, focal_mm):
            return math.nan
        focal = focal_mm * pixels_per_mm * long / original_long
    else:
        return math.nan
    return focal if 0.2 * long < focal < 50.0 * long else math.nan


def _sensor_is_plausible(width_mm: float, focal_mm: float) -> bool:
    """Whether a camera with such a sensor exists.

    Software that shrinks a photo often updates its recorded size but not its pixels per mm, which results in a sensor
    of impossible size: a compact camera's with an SLR's lens, or one between a compact's and an SLR's.
    """
    compact = 4.0 <= width_mm <= 10.0 and focal_mm < 14.0
    return compact or 20.0 <= width_mm <= 60.0


def _read_tags(image: Image.Image) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    tags: dict[int, Any] = {}
    exif_tags: dict[int, Any] = {}
    gps: dict[int, Any] = {}
    with contextlib.suppress(Exception):  # each part may be corrupt in its own way
        exif = image.getexif()
        tags = dict(exif)
        with contextlib.suppress(Exception):
            exif_tags = dict(exif.get_ifd(IFD.Exif))
        with contextlib.suppress(Exception):
            gps = dict(exif.get_ifd(IFD.GPSInfo))
    return tags, exif_tags, gps


def _float_or_nan(value: Any) -> float:
    """A finite float, or NaN: EXIF holds rationals (some with a zero denominator), tuples of one, or text."""
    with contextlib.suppress(Exception):
        number = float(value[0] if isinstance(value, tuple | list) else value)
        return number if math.isfinite(number) else math.nan
    return math.nan


def _int_or_default(value: Any, default: int = 0) -> int:
    number = _float_or_nan(value)
    return default if math.isnan(number) else int(number)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore")
    if not isinstance(value, str):
        return ""
    readable = "".join(c if c.isprintable() else " " for c in value.partition("\0")[0])
    return " ".join(readable.split())[:100]


def _camera_name(tags: dict[int, Any], exif_tags: dict[int, Any]) -> str:
    make, model, lens = (
        _text(tags.get(Base.Make)),
        _text(tags.get(Base.Model)),
        _text(exif_tags.get(Base.LensModel)),
    )
    if model.lower().startswith(make.lower()):  # "Canon" and "Canon EOS 40D"
        make = ""
    return " ".join(part for part in (make, model, f"({lens})" if lens else "") if part)


def _taken_at(tags: dict[int, Any], exif_tags: dict[int, Any]) -> str:
    """ISO time without zone, fractions of a second where the camera gives them."""
    for text, fraction in (
        (exif_tags.get(Base.DateTimeOriginal), exif_tags.get(Base.SubsecTimeOriginal)),
        (exif_tags.get(Base.DateTimeDigitized), exif_tags.get(Base.SubsecTimeDigitized)),
        (tags.get(Base.DateTime), exif_tags.get(Base.SubsecTime)),
    ):
        with contextlib.suppress(ValueError):
            time = datetime.strptime(_text(text), "%Y:%m:%d %H:%M:%S").isoformat()
            digits = _text(fraction)
            return f"{time}.{digits}" if digits.isascii() and digits.isdigit() else time
    return ""


def _exposure_ev(exif_tags: dict[int, Any]) -> float:
    time_s, iso, aperture = (
        _float_or_nan(exif_tags.get(tag)) for tag in (Base.ExposureTime, Base.ISOSpeedRatings, Base.FNumber)
    )
    if not time_s > 0:
        return math.nan
    return math.log2(time_s) + (math.log2(iso) if iso > 0 else 0.0) - (2 * math.log2(aperture) if aperture > 0 else 0.0)


def _gps_position(gps: dict[int, Any]) -> tuple[float, float]:
    """Latitude and longitude in degrees, or NaN for both; receivers write (0, 0) while they have no position."""
    latitude_deg = _degrees(gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLatitudeRef), "S")
    longitude_deg = _degrees(gps.get(GPS.GPSLongitude), gps.get(GPS.GPSLongitudeRef), "W")
    is_valid = abs(latitude_deg) <= 90.0 and abs(longitude_deg) <= 180.0 and (latitude_deg, longitude_deg) != (0.0, 0.0)
    return (latitude_deg, longitude_deg) if is_valid else (math.nan, math.nan)


def _degrees(value: Any, reference: Any, negative: str) -> float:
    """Degrees from (degrees, minutes, seconds), of which the last may be absent, or from one number."""
    parts = [_float_or_nan(v) for v in value] if isinstance(value, tuple | list) else [_float_or_nan(value)]
    if not 1 <= len(parts) <= 3:
        return math.nan
    degrees = sum(part / 60.0**power for power, part in enumerate(parts))
    return -degrees if _text(reference).upper().startswith(negative) else degrees


def _altitude_m(gps: dict[int, Any]) -> float:
    below = gps.get(GPS.GPSAltitudeRef) in (1, b"\x01", (1,))
    altitude_m = _float_or_nan(gps.get(GPS.GPSAltitude))
    return -altitude_m if below else altitude_m
