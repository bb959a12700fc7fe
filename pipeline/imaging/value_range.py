"""Photos of more than 8 bits a channel: their values, and the range of values that is seen from black to white.

Cameras fill a part of 16 bits: 10 or 12 bits of them, or the temperatures of a scene in hundredths of a kelvin. All
photos of a folder are brought to 8 bits by one and the same range, so that what is as bright in two photos stays so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8, UInt16
from PIL import Image

from quoin.pipeline.core.reasons import Reason, RejectedFileError

Array = np.ndarray
ValueRange = tuple[int, int]  # the values of a file that become black and white

FULL_RANGE: ValueRange = (0, 65535)
MIN_FULL_SPAN = 32768  # photos that span more than half of the full range are shown by the full range
MIN_SPAN = 64  # values; a narrower range would show the noise of blank photos
SPAN_PERCENTILES = (0.1, 99.9)  # of a photo's values; dead and glaring pixels lie beyond
MAX_SPAN_SAMPLES = 1 << 20  # values looked at per photo
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284  # tags of TIFF
_PNG_DEPTH_BYTE = 24  # of the file


def is_deep_gray(image: Image.Image) -> bool:
    """Whether an opened image holds one channel of more than 8 bits."""
    return image.mode.startswith("I")


def is_deep_color(image: Image.Image, path: Path) -> bool:
    """Whether the image opened at ``path`` holds colors of 16 bits, of which Pillow keeps the upper 8."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return max(tags.get(_BITS_PER_SAMPLE, (1,))) == 16 and tags.get(_PHOTOMETRIC) == 2
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(_PNG_DEPTH_BYTE + 1)[-1] == 16
    return False


def is_planar_deep(image: Image.Image) -> bool:
    """Whether an opened image is a TIFF of 16 bits whose channels lie one after the other: Pillow garbles those."""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    return tags.get(_PLANAR) == 2 and len(bits) > 1 and max(bits) > 8


def deep_values(image: Image.Image, path: Path) -> Integer[Array, "h w *c"]:
    """Values of the deep image opened at ``path``, [h, w] of gray and [h, w, 3] of color; call inside ``open_image``.

    Gray that is a TIFF has turned itself upright, as Pillow turns all; colors are as they are stored.
    """
    return np.asarray(image) if is_deep_gray(image) else _decode_color(image, path)


def _decode_color(image: Image.Image, path: Path) -> UInt16[Array, "h w 3"]:
    """Colors of 16 bits by FFmpeg, as they are stored; Pillow has looked whether the file is whole."""
    import av

    codec: av.VideoCodecContext = av.CodecContext.create(str(image.format).lower(), "r")  # type: ignore[assignment]
    frames = codec.decode(av.Packet(path.read_bytes())) or codec.decode(None)
    values = frames[0].to_ndarray(format="rgb48le") if frames else np.zeros((0, 0, 3), np.uint16)
    if sorted(values.shape[:2]) != sorted(image.size):  # Pillow's may have turned already
        raise RejectedFileError(Reason.UNREADABLE, "16-bit colors in a form that is not read", where=path)
    return values


def find_value_span(values: Integer[Array, "h w *c"]) -> ValueRange | None:
    """The values that a photo spans, without a few extremes and without 0 (no value); None where all are one."""
    step = max(1, int(np.sqrt(values.size / MAX_SPAN_SAMPLES)))
    sample = values[::step, ::step]
    sample = sample[sample > 0]
    if not len(sample):
        return None
    low, high = (int(value) for value in np.percentile(sample, SPAN_PERCENTILES))
    return (low, high) if high > low else None


def common_value_range(spans: Iterable[ValueRange | None]) -> ValueRange:
    """The one range for photos of these spans: the full one where they use more than half of it."""
    lows_and_highs = [span for span in spans if span]
    if not lows_and_highs:
        return FULL_RANGE
    black, white = min(low for low, _ in lows_and_highs), max(high for _, high in lows_and_highs)
    is_full = white - black >= MIN_FULL_SPAN and white <= FULL_RANGE[1]
    return FULL_RANGE if is_full else (black, max(white, black + MIN_SPAN))


def to_8_bits(values: Integer[Array, "*s"], value_range: ValueRange) -> UInt8[Array, "*s"]:
    """The values in 256 equal steps of ``value_range``, those beyond it black or white."""
    black, white = value_range
    if values.dtype == np.uint16:  # by a table, which takes no memory of the photo's size
        return to_8_bits(np.arange(1 << 16), value_range)[values]
    return np.clip((values.astype(np.int64) - black) * 256 // (white - black + 1), 0, 255).astype(np.uint8)
