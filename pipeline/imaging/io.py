"""One photo or mask from disk to upright pixels. Every stage that reads the user's files reads them here.

*Stored* pixels lie as the file holds them, *upright* ones as EXIF orientation says they are to be seen. Everything in
quoin is upright: tables, poses, masks. Only photo formats are tried: no decoder that runs programs or other services.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, UnidentifiedImageError

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, RejectedFileError
from quoin.pipeline.imaging.value_range import (
    FULL_RANGE,
    ValueRange,
    deep_values,
    is_deep_color,
    is_deep_gray,
    is_planar_deep,
    to_8_bits,
)

Array = np.ndarray

MAX_DECODED_PIXELS = 150_000_000  # at 10 bytes each 1.5 GB
MAX_PIXELS = 300_000_000  # above this a file is taken for a decompression bomb; the largest cameras have 150 million
MAX_IGNORED_ALPHA = 127  # of 255: pixels less opaque than half are ignored
ORIENTATION_TAG = 0x0112
PHOTO_FORMATS = ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF"]

Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses above twice this, from the header, before it allocates
try:
    import pillow_heif

    pillow_heif.register_heif_opener()
    PHOTO_FORMATS.append("HEIF")
except ImportError:  # HEIC photos are then listed as unreadable
    pass


class _PillowWarnings:
    """Silences Pillow while any thread is inside. ``warnings.catch_warnings`` alone leaks when threads interleave."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._saved: contextlib.AbstractContextManager[object] = contextlib.nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif")
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_silenced = _PillowWarnings()


@contextlib.contextmanager
def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The file as a Pillow image, header read and pixels not yet.

    Whatever a decoder throws becomes a RejectedFileError, whose ``rejection`` says why the file cannot be used.
    """
    with _silenced:
        try:
            # Not by name: Pillow would map the file into memory, garble turned TIFFs, and die where the file shrinks.
            with path.open("rb") as file, Image.open(file, formats=PHOTO_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise _too_large(path, f"{width} x {height} pixels, ", max_pixels)
                yield image
        except QuoinError:
            raise
        except Image.DecompressionBombError:
            raise _too_large(path, "", MAX_PIXELS) from None
        except UnidentifiedImageError:
            raise RejectedFileError(Reason.UNREADABLE, "it holds no image of a known format", where=path) from None
        except Exception as error:  # hostile bytes make decoders raise anything, MemoryError included
            raise _decoder_error(path, error) from error


def _too_large(path: Path, size: str, max_pixels: int) -> RejectedFileError:
    limit = f"{size}the limit is {max_pixels / 1e6:g} megapixels"
    return RejectedFileError(Reason.TOO_LARGE, limit, where=path)


def _decoder_error(path: Path, error: Exception) -> RejectedFileError:
    if isinstance(error, OSError) and error.errno:
        return RejectedFileError(Reason.UNREADABLE, error.strerror or "", where=path)
    text = " ".join(str(error).split()) or type(error).__name__
    lowered = text.lower()
    if isinstance(error, EOFError) or "truncated" in lowered or "not enough data" in lowered:
        return RejectedFileError(Reason.TRUNCATED, where=path)
    return RejectedFileError(Reason.UNREADABLE, text[:120], where=path)


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 still to be applied to loaded pixels; 1 where absent or invalid."""
    value = None
    with contextlib.suppress(Exception):  # EXIF is never worth a photo
        value = image.getexif().get(ORIENTATION_TAG)
    return value if type(value) is int and 1 <= value <= 8 else 1


def stored_orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 of the file itself. TIFF forgets it while loading; HEIF turns itself and keeps note."""
    if image.format != "TIFF":
        image.load()  # a PNG's EXIF may follow its pixels: looking for it would meet, and hide, their errors
    noted = image.info.get("original_orientation")
    return noted if type(noted) is int and 1 <= noted <= 8 else exif_orientation(image)


def apply_orientation(pixels: Shaped[Array, "h w *c"], orientation: int) -> Shaped[Array, "h2 w2 *c"]:
    """Stored pixels as they are to be seen (EXIF 2.32, tag 0x0112); 5 to 8 exchange width and height."""
    axes = (1, 0, *range(2, pixels.ndim))
    rotated = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(axes),
        6: pixels[::-1].transpose(axes),
        7: pixels[::-1, ::-1].transpose(axes),
        8: pixels[:, ::-1].transpose(axes),
    }[orientation]
    return np.ascontiguousarray(rotated)


def upright_rgb(image: Image.Image, path: Path, value_range: ValueRange = FULL_RANGE) -> UInt8[Array, "h w 3"]:
    """Upright pixels of the image that ``open_image`` opened at ``path``, of any mode; transparency lies on white.

    Of more than 8 bits a channel, ``value_range`` is what becomes black and white.
    """
    is_color = is_deep_color(image, path)
    if not is_color and is_planar_deep(image):
        raise RejectedFileError(Reason.UNREADABLE, "channels of 16 bits one after the other, in no RGB")
    orientation = stored_orientation(image)
    image.load()  # TIFF turns itself upright while loading, then says orientation 1
    if not is_color or (value_range == FULL_RANGE and not is_planar_deep(image)):
        return apply_orientation(_rgb(image, path, value_range), exif_orientation(image))
    rgb = apply_orientation(to_8_bits(deep_values(image, path), value_range), orientation)
    if is_cut_out(image):
        rgb[apply_orientation(_alpha(image), exif_orientation(image)) <= MAX_IGNORED_ALPHA] = 255
    return rgb


def is_cut_out(image: Image.Image) -> bool:
    """Whether a part of a photo is transparent: its alpha says what of it to use. Call inside ``open_image``."""
    if not image.has_transparency_data or is_planar_deep(image):  # whose alpha Pillow garbles
        return False
    ignored = _alpha(image) <= MAX_IGNORED_ALPHA
    return bool(ignored.any() and not ignored.all())


def _alpha(image: Image.Image) -> UInt8[Array, "h w"]:
    return np.asarray(image.getchannel("A") if "A" in image.getbands() else image.convert("RGBA").getchannel("A"))


def load_upright(
    path: Path, max_pixels: int = MAX_PIXELS, value_range: ValueRange = FULL_RANGE
) -> UInt8[Array, "h w 3"]:
    """A photo as upright RGB; see ``upright_rgb``. Raises RejectedFileError where it cannot be read."""
    with open_image(path, max_pixels) as image:
        return upright_rgb(image, path, value_range)


def load_mask(path: Path, size: tuple[int, int], orientation: int = 1) -> UInt8[Array, "h w"]:
    """The mask of a photo of upright ``size`` (width, height): 255 use, 0 ignore.

    Black is ignored. ``orientation`` is the photo's: a mask of the photo's stored shape is turned as the photo is,
    unless it carries an orientation of its own; where the two shapes are one (2 to 4) it is taken to be upright.
    Another resolution of the same shape is resized (nearest).
    Raises QuoinError where the file cannot be read or has another shape.
    """
    with open_image(path) as image:
        image.load()
        mask = apply_orientation(_binary_mask(image), exif_orientation(image))
    if orientation >= 5 and not has_same_aspect(mask.shape[::-1], size) and has_same_aspect(mask.shape, size):
        mask = apply_orientation(mask, orientation)
    if not has_same_aspect(mask.shape[::-1], size):
        have, want = (f"{width} x {height}" for width, height in (mask.shape[::-1], size))
        raise QuoinError(f"The mask is {have} pixels, which does not fit its photo of {want}", where=path)
    if mask.shape[::-1] != tuple(size):
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return np.ascontiguousarray(mask)


def has_same_aspect(size: tuple[int, ...], photo: tuple[int, int]) -> bool:
    """Whether a picture of ``size`` has the shape of ``photo``, up to a pixel of rounding when it was resized."""
    (width, height), (photo_width, photo_height) = size, photo
    return abs(width * photo_height - height * photo_width) <= max(photo_width, photo_height, width, height)


def _rgb(image: Image.Image, path: Path, value_range: ValueRange) -> UInt8[Array, "h w 3"]:
    if is_deep_gray(image):
        return np.repeat(to_8_bits(deep_values(image, path), value_range)[..., None], 3, axis=2)
    if image.mode == "F":
        raise RejectedFileError(Reason.UNREADABLE, "floating-point pixels are not a photo")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # converting would copy


def _binary_mask(image: Image.Image) -> UInt8[Array, "h w"]:
    """Stored pixels of a mask as 255 or 0.

    A cut-out says it by alpha. Otherwise the brightest channel decides at half its range, so that JPEG noise stays
    black; a lossless file that stays below half holds labels or 0 and 1, where only 0 is black.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return np.where(np.asarray(image) > 0, 255, 0).astype(np.uint8)
    if image.has_transparency_data:
        alpha = _alpha(image)
        if alpha.min() < alpha.max():
            return np.where(alpha > MAX_IGNORED_ALPHA, 255, 0).astype(np.uint8)
    values = np.asarray(image.convert("RGB")).max(axis=2)
    labels = image.format not in ("JPEG", "MPO") and values.max(initial=0) < 128
    return np.where(values > (0 if labels else 127), 255, 0).astype(np.uint8)


class PixelBudget:
    """Bounds what threads hold decoded at once, about 10 bytes a pixel; a photo larger than the budget goes alone."""

    def __init__(self, pixels: int = MAX_DECODED_PIXELS) -> None:
        self._limit, self._held, self._change = pixels, 0, threading.Condition()

    @contextlib.contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until ``pixels`` fit into the budget, and reserve them inside the block."""
        with self._change:
            self._change.wait_for(lambda: self._held == 0 or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._change:
                self._held -= pixels
                self._change.notify_all()
