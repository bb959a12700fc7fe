"""Inspection of one file: upright size, EXIF, content hash, signature and border, or why it is not used."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.ExifTags import IFD, Base

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, RejectedFileError, Rejection
from quoin.pipeline.imaging.io import PixelBudget, is_cut_out, load_mask, open_image, stored_orientation, upright_rgb
from quoin.pipeline.imaging.value_range import FULL_RANGE, ValueRange
from quoin.pipeline.storage.layout import sha256_of
from quoin.stages.ingest.exif import Exif, read_exif
from quoin.stages.ingest.file_search import CAMERA_RAW, PHOTO_SUFFIXES, suffix_of

Array = np.ndarray

# In other formats further frames are previews, pages, or a second eye.
ANIMATED_FORMATS = {"PNG", "WEBP", "AVIF"}

# Camera raws are TIFFs inside (TIFF 6.0, TIFF/EP, DNG 1.7).
_SUBFILE_TYPE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706  # tags
_CFA, _LINEAR_RAW = 32803, 34892  # values of the photometric interpretation

# Borders: bars of one colour along the sides (frames, letterboxes), which do not show the scene.
NO_BORDER = (0, 0, 0, 0)
COLOR_TOLERANCE = 8  # gray levels within which JPEG keeps one colour
MIN_UNIFORM_SHARE = 0.99  # of the pixels of a row: in the colour of the bar
MIN_CHANGED_SHARE = 0.6  # of the pixels of a row: in other colours, where the picture begins
EDGE_ROWS = 8  # within which the picture begins: one block of JPEG
MAX_PAIRED_BAR_SHARE = 0.35  # of the photo, where the opposite side has a bar of the same colour
MAX_SINGLE_BAR_SHARE = 0.1  # of the photo, where it has none
CUT_MARGIN_SHARE = 0.003  # of the long edge: cut beyond the bar, where the picture blurs into it

# The signature, from a small gray copy: a perceptual hash and a sharpness.
GRAY_EDGE_PX = 512  # long edge of the gray copy
HASH_SIDE_PX = 64  # side of the square that the photo is resized to for the hash
HASH_BITS = 64
SHARPNESS_TILE_PX = 64
MIN_TILE_SLOPE = 3.0  # gray levels per coarse pixel; tiles with less have no edges
MIN_EDGE_TILES = 3

# Panoramas, which are no pinhole images.
_PROJECTION = re.compile(rb"GPano:ProjectionType\s*(?:=\s*[\"']|>)\s*(\w+)")
_APPLE_PANORAMA = 6  # CustomRendered of iPhones
SEAM_HEIGHT_PX = 128  # of the copy, half as wide again, on which the sides are compared
MIN_SEAM_CORRELATION = 0.9  # of the first and the last column, without what each row has in common
MAX_POLE_SPREAD = 0.5  # of the first and the last row, per spread of the rows between: each is one point of the sphere


@dataclass(frozen=True)
class PhotoInspection:
    """What a file turned out to be. ``rejection``: None for a photo to use; ``mask_error``: "" for a mask that fits."""

    width: int = 0  # upright
    height: int = 0
    orientation: int = 1
    exif: Exif = field(default_factory=Exif)
    content_hash: str = ""
    signature: ImageSignature | None = None  # of a photo to use
    border: tuple[int, int, int, int] = NO_BORDER  # pixels at the left, top, right, bottom
    rejection: Rejection | None = None
    mask_error: str = ""
    is_cut_out: bool = False  # its alpha is a mask
    file_hash: str = ""  # SHA-256 of the file


@dataclass(frozen=True)
class InspectionLimits:
    """What a photo must be: at most so many pixels, a side of at least so many, and a contrast in gray levels."""

    max_pixels: int
    min_side_px: int
    min_contrast: float


def inspect_photo(
    path: Path,
    mask: Path | None,
    budget: PixelBudget,
    limits: InspectionLimits,
    value_range: ValueRange = FULL_RANGE,
) -> PhotoInspection:
    """Read a photo once, and its mask. Never raises for what a file holds."""
    try:
        with open_image(path, limits.max_pixels) as image, budget.reserve(image.width * image.height):
            if image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1:
                raise RejectedFileError(Reason.ANIMATED, "not a photo")
            if is_camera_raw(image):
                return PhotoInspection(rejection=CAMERA_RAW)
            orientation, exif = stored_orientation(image), read_exif(image)
            panorama_kind = read_panorama_tag(image)
            rgb = upright_rgb(image, path, value_range)
            cut_out = is_cut_out(image)
            image.close()  # its pixels are not needed twice
            height, width = rgb.shape[:2]
            rejection = _rejection_of_pixels(rgb, limits)
            if panorama_kind and not rejection:
                rejection = Rejection(Reason.PANORAMA, f"the file says that it is {panorama_kind}")
            elif not rejection and is_equirectangular(rgb):
                rejection = Rejection(Reason.PANORAMA, "it shows 360°: twice as wide as high, and its sides join")
            pixel_hash, file_hash = content_hash(rgb), sha256_of(path)
            signature = None if rejection else image_signature(rgb)
            border = NO_BORDER if rejection else find_borders(rgb)
    except RejectedFileError as error:
        is_photo_name = suffix_of(path.name) in PHOTO_SUFFIXES
        return PhotoInspection(rejection=error.rejection if is_photo_name else Rejection(Reason.NOT_A_PHOTO))
    mask_error = ""
    if mask is not None and not rejection:
        try:
            if not load_mask(mask, (width, height), orientation).any():
                rejection = Rejection(Reason.MASKED, "its mask ignores all of it")
        except QuoinError as error:
            mask_error = error.what
    return PhotoInspection(
        width, height, orientation, exif, pixel_hash, signature, border, rejection, mask_error, cut_out, file_hash
    )


def is_camera_raw(image: Image.Image) -> bool:
    """Whether a TIFF holds what a sensor measured: Pillow would take the thumbnail before it for the photo."""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    is_thumbnail = tags.get(_SUBFILE_TYPE, 0) & 1 == 1
    return is_thumbnail or _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in (_CFA, _LINEAR_RAW)


def content_hash(rgb: UInt8[Array, "h w 3"]) -> str:
    """Hash of the pixels and their arrangement: equal for exact duplicates only, whatever their files say."""
    return hashlib.blake2b(rgb.data, digest_size=16, key=str(rgb.shape).encode()).hexdigest()


def photo_contrast(rgb: UInt8[Array, "h w 3"]) -> float:
    """Standard deviation in grey levels of the photo at thumbnail size, where sensor noise has averaged out."""
    factor = max(1, min(rgb.shape[:2]) // 64)
    return float(np.asarray(Image.fromarray(rgb).reduce(factor).convert("L")).std())


def _rejection_of_pixels(rgb: UInt8[Array, "h w 3"], limits: InspectionLimits) -> Rejection | None:
    height, width = rgb.shape[:2]
    if min(width, height) < limits.min_side_px:
        return Rejection(Reason.TOO_SMALL, f"{width} x {height} pixels")
    return Rejection(Reason.BLANK, "it shows nothing") if photo_contrast(rgb) < limits.min_contrast else None


# -- borders -----------------------------------------------------------------------------------------------------------


def find_borders(rgb: UInt8[Array, "h w 3"]) -> tuple[int, int, int, int]:
    """Width in pixels of the bar of one colour at the left, top, right and bottom; 0 where a side has none.

    A bar ends in a straight edge across the whole photo, unlike sky or a wall. It is narrow, unless the opposite side
    has one of the same colour.
    """
    height, width = rgb.shape[:2]
    margin = max(2, math.ceil(CUT_MARGIN_SHARE * max(height, width)))
    top, bottom = _bar_heights(rgb)
    inner = rgb[top : height - bottom].swapaxes(0, 1)
    left, right = _bar_heights(inner)

    def add_margin(bar: int) -> int:
        return bar + margin if bar else 0

    return add_margin(left), add_margin(top), add_margin(right), add_margin(bottom)


def _bar_heights(rgb: UInt8[Array, "h w 3"]) -> tuple[int, int]:
    """Height in pixels of the bars at the top and at the bottom."""
    first, last = _bar_height(rgb), _bar_height(rgb[::-1])
    is_same_color = np.abs(rgb[0].astype(int).mean(axis=0) - rgb[-1].astype(int).mean(axis=0)).max() <= COLOR_TOLERANCE
    limit = (MAX_PAIRED_BAR_SHARE if first and last and is_same_color else MAX_SINGLE_BAR_SHARE) * len(rgb)
    return (first if first <= limit else 0), (last if last <= limit else 0)


def _bar_height(rgb: UInt8[Array, "h w 3"]) -> int:
    """Height in pixels of the bar at the top; 0 where the picture does not begin with a sharp edge."""
    bar_color = np.median(rgb[0], axis=0).astype(np.int16)
    count = 0
    for row in rgb[: math.ceil(MAX_PAIRED_BAR_SHARE * len(rgb)) + 1]:
        if (np.abs(row - bar_color).max(axis=1) <= COLOR_TOLERANCE).mean() < MIN_UNIFORM_SHARE:
            break
        count += 1
    changed = (np.abs(rgb[count : count + EDGE_ROWS] - bar_color).max(axis=2) > 2 * COLOR_TOLERANCE).mean(
        axis=1
    ) >= MIN_CHANGED_SHARE
    return count + int(np.argmax(changed)) if count > 1 and changed.any() else 0


# -- signature ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSignature:
    """``bits``: perceptual hash; ``sharpness``: 0 (blurred) to about 1, NaN where a photo has no edges."""

    bits: int
    sharpness: float


def image_signature(rgb: UInt8[Array, "h w 3"]) -> ImageSignature:
    """The signature of an upright photo."""
    gray = gray_thumbnail(rgb)
    return ImageSignature(perceptual_hash(gray), photo_sharpness(gray))


def gray_thumbnail(rgb: UInt8[Array, "h w 3"], edge_px: int = GRAY_EDGE_PX) -> Float32[Array, "h2 w2"]:
    """The photo in gray levels, its long edge reduced to ``edge_px`` at most, by averaging."""
    image = Image.fromarray(rgb)
    scale = edge_px / max(image.size)
    if scale < 1.0:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(image.convert("L"), np.float32)


def perceptual_hash(gray: Float32[Array, "h w"]) -> int:
    """64 bits: which of the 64 lowest frequencies (cosine transform, without the mean) lie above their median.

    Compression, size and exposure change few of them, another picture half.
    """
    from scipy.fft import dctn

    square = np.asarray(Image.fromarray(gray).resize((HASH_SIDE_PX, HASH_SIDE_PX), Image.Resampling.BOX), np.float64)
    coefficients = dctn(square, norm="ortho")[:16, :16]
    down, across = np.indices(coefficients.shape)
    order = np.lexsort((down.ravel(), (down**2 + across**2).ravel()))[1 : HASH_BITS + 1]
    low = coefficients.ravel()[order]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def photo_sharpness(gray: Float32[Array, "h w"]) -> float:
    """How much finer a photo's edges are than those of a smaller copy, in the direction where they are least so.

    In each tile of 64 px: root mean square slope per pixel over the same in the copy of a quarter of the size. An edge
    wider than 4 pixels gives 1/4, which counts as 0; real photos lie between 0.1 and 1. Of the tiles with edges the
    quartile of the sharpest stands for the photo, so that a blurred background does not count against it; the lesser
    of both directions, so that motion blur does.
    """
    height, width = (size // 4 * 4 for size in gray.shape)
    fine = gray[:height, :width].astype(np.float64)
    if min(height, width) < SHARPNESS_TILE_PX + 4:
        return math.nan
    coarse = fine.reshape(height // 4, 4, width // 4, 4).mean(axis=(1, 3))
    ratios = []
    for axis in (0, 1):
        fine_slopes = _tile_means(np.diff(fine, axis=axis) ** 2, SHARPNESS_TILE_PX)
        coarse_slopes = _tile_means(np.diff(coarse, axis=axis) ** 2, SHARPNESS_TILE_PX // 4)
        rows, columns = np.minimum(fine_slopes.shape, coarse_slopes.shape)
        fine_slopes, coarse_slopes = fine_slopes[:rows, :columns], coarse_slopes[:rows, :columns]
        edged = coarse_slopes > MIN_TILE_SLOPE**2
        if edged.sum() >= MIN_EDGE_TILES:
            ratios.append(float(np.percentile(np.sqrt(fine_slopes[edged] / coarse_slopes[edged]), 75)))
    return max(0.0, min(ratios) - 0.25) if ratios else math.nan


def _tile_means(values: Array, tile: int) -> Array:
    height, width = (size // tile * tile for size in values.shape)
    return values[:height, :width].reshape(height // tile, tile, width // tile, tile).mean(axis=(1, 3))


# -- panoramas ---------------------------------------------------------------------------------------------------------


def read_panorama_tag(image: Image.Image) -> str:
    """The kind of panorama in the file's metadata (GPano in XMP, or EXIF of iPhones); "" where it has none."""
    with contextlib.suppress(Exception):  # corrupt metadata is no reason to lose a photo
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        match = _PROJECTION.search(xmp.encode() if isinstance(xmp, str) else xmp)
        if match and match[1].lower() != b"perspective":
            return match[1].decode("ascii", "ignore").lower()
    with contextlib.suppress(Exception):
        exif = image.getexif()
        if exif.get(Base.Make) == "Apple" and exif.get_ifd(IFD.Exif).get(Base.CustomRendered) == _APPLE_PANORAMA:
            return "panorama"
    return ""


def is_equirectangular(rgb: UInt8[Array, "h w 3"]) -> bool:
    """Whether a picture is twice as wide as high, goes on from its right side to its left, and ends in two points."""
    height, width = rgb.shape[:2]
    if abs(width - 2 * height) > 1:
        return False
    size = (2 * SEAM_HEIGHT_PX, SEAM_HEIGHT_PX)
    gray = np.asarray(Image.fromarray(rgb).convert("L").resize(size, Image.Resampling.BOX), np.float32)
    spread = gray.std(axis=1)
    if max(spread[0], spread[-1]) > MAX_POLE_SPREAD * np.median(spread):
        return False
    left, right = (gray - gray.mean(axis=1, keepdims=True))[:, [0, -1]].T
    energy = float(np.linalg.norm(left) * np.linalg.norm(right))
    return energy > 0 and float(left @ right) / energy >= MIN_SEAM_CORRELATION
