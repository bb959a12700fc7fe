"""Decoder of clips: headers, frames and their measurements, by FFmpeg's libraries through PyAV.

Frames are decoded one by one, so that few are in memory. Only video containers are opened, and no file but the clip
itself: a playlist named like a clip cannot make FFmpeg open other files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import UInt8

from quoin.pipeline.core.reasons import Reason, RejectedFileError
from quoin.pipeline.imaging.io import apply_orientation
from quoin.stages.ingest.keyframes import FrameSamples
from quoin.stages.ingest.motion import MOTION_GRID_SIZE, estimate_motion, frame_sharpness, normalized_texture

if TYPE_CHECKING:
    import av

Array = np.ndarray

CONTAINER_FORMATS = "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg,mxf,dv,nut,h264,hevc"
MAX_SAMPLES_PER_S = 15.0  # frames per second that are measured; more would add nothing
SAMPLE_EDGE_PX = 512  # long edge of the gray copy that sharpness is measured on
MAX_PIXEL_ASPECT = 4.0  # width of a pixel over its height, or its inverse; anamorphic films have 2 at most
MIN_DECODED_SHARE = 0.9  # of the length in its header; a clip with less is truncated
FRAME_JPEG_QUALITY = 95
FIXED_POINT_ONE = 1 << 16  # the 1 of the fixed-point numbers in a display matrix
# EXIF orientation of a display matrix (a b; c d), x right and y down.
ORIENTATION_BY_MATRIX = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


@dataclass(frozen=True)
class ClipHeader:
    """Facts in the header of a clip; 0 where it has none."""

    length_s: float
    frames_per_s: float
    n_frames: int


@dataclass(frozen=True)
class DecodedFrame:
    """One frame, its number in the clip, its time from the first; ``aspect`` is a pixel's width over its height."""

    frame: av.VideoFrame
    number: int
    time_s: float
    aspect: float


@dataclass(frozen=True)
class ClipScan:
    """Measurements of a clip: ``n_frames`` can be decoded, the last of them at ``last_s`` seconds.

    ``is_interlaced``: the frames say that each holds two fields, taken one after the other.
    """

    samples: FrameSamples
    n_frames: int
    last_s: float
    is_interlaced: bool


def read_clip_header(path: Path) -> ClipHeader:
    """What the clip says of itself; QuoinError, its ``what`` fit for a table, where it is none that can be decoded."""
    with _open_video(path) as (container, stream):
        _pixel_aspect(stream)
        length_s = float(container.duration or 0) / 1e6
        if stream.duration and stream.time_base:
            length_s = float(stream.duration * stream.time_base)
        rate = float(stream.average_rate or 0)
        return ClipHeader(length_s, rate, stream.frames or round(length_s * rate))


def decode_frames(path: Path) -> Iterator[DecodedFrame]:
    """All frames that can be decoded, in display order, without damaged ones.

    A truncated clip ends where its data end. QuoinError where it is none that can be decoded.
    """
    import av

    with _open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        aspect = _pixel_aspect(stream)
        number, first_s, last = 0, None, 0.0
        for frame in _decode_packets(container, stream, av.error.FFmpegError):
            if frame.is_corrupt:
                continue
            time_s = frame.time if frame.time is not None else last
            first_s = time_s if first_s is None else first_s
            last = time_s
            yield DecodedFrame(frame, number, time_s - first_s, aspect)
            number += 1


def _pixel_aspect(stream: Any) -> float:
    """Width of a pixel over its height; RejectedFileError where no film has such pixels."""
    ratio = stream.sample_aspect_ratio or 1
    if not 1 / MAX_PIXEL_ASPECT <= ratio <= MAX_PIXEL_ASPECT:
        detail = f"its header says that pixels are {float(ratio):.3g} times as wide as high"
        raise RejectedFileError(Reason.UNREADABLE, detail)
    return float(ratio)


def _decode_packets(container: Any, stream: Any, decode_error: type[Exception]) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except decode_error:  # the file ends within a packet
            packet = None
        with contextlib.suppress(decode_error, EOFError):  # a damaged packet: the next may be whole
            yield from (packet.decode() if packet is not None else stream.decode(None))
        if packet is None:
            return


def scan_clip(path: Path, advance: Callable[[float], None] = lambda done: None) -> ClipScan:
    """Measurements of a clip's frames.

    ``advance`` is called with the number of frames decoded so far.
    """
    samples: list[tuple[int, float, Array, float]] = []
    previous: Array | None = None
    n_frames, last_s, is_interlaced = 0, 0.0, False
    for decoded in decode_frames(path):
        n_frames, last_s = decoded.number + 1, decoded.time_s
        advance(n_frames)
        if samples and last_s < samples[-1][1] + 0.99 / MAX_SAMPLES_PER_S:
            continue
        is_interlaced |= decoded.frame.interlaced_frame
        gray = _gray_frame(decoded.frame)
        current = normalized_texture(gray)
        if previous is None:
            moved = np.zeros((MOTION_GRID_SIZE**2, 2), np.float32)
        elif previous.shape != current.shape:
            moved = np.full((MOTION_GRID_SIZE**2, 2), np.nan, np.float32)
        else:
            moved = estimate_motion(previous, current)
        previous = current
        samples.append((decoded.number, last_s, moved, frame_sharpness(gray)))
    if not samples:
        raise RejectedFileError(Reason.UNREADABLE, "none of its frames can be decoded", where=path)
    number, times_s, motions, sharp = (np.array(part) for part in zip(*samples, strict=True))
    return ClipScan(FrameSamples(number, times_s, motions, sharp), n_frames, last_s, is_interlaced)


def write_frames(path: Path, targets: dict[int, Path], advance: Callable[[float], None] = lambda done: None) -> None:
    """Write frames of a clip (``targets``: number -> file) as JPEG, upright and with square pixels.

    ``advance`` is called with the number of files written so far.
    """
    from PIL import Image

    remaining = dict(targets)
    for decoded in decode_frames(path):
        target = remaining.pop(decoded.number, None)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".partial")
            Image.fromarray(upright_frame(decoded)).save(part, "JPEG", quality=FRAME_JPEG_QUALITY)
            part.replace(target)
            advance(len(targets) - len(remaining))
        if not remaining:
            return


def upright_frame(decoded: DecodedFrame) -> UInt8[Array, "h w 3"]:
    """The frame in RGB, upright by its display matrix and with square pixels; of an interlaced one its first field."""
    frame = decoded.frame
    with _rejecting_conversion_errors():
        width = max(1, round(frame.width * decoded.aspect))
        pixels = _first_field(frame).to_ndarray(format="rgb24", width=width, height=frame.height)
    return apply_orientation(pixels, frame_orientation(frame))


def _first_field(frame: av.VideoFrame) -> av.VideoFrame:
    """The lines of the field at the top, half as many, of an interlaced frame; any other frame itself.

    The fields were taken one after the other: together they show what moves as a comb.
    """
    import av

    if not frame.interlaced_frame:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("field", "type=top"), graph.add("buffersink")).configure()
    graph.push(frame)
    return cast("av.VideoFrame", graph.pull())


@contextlib.contextmanager
def _rejecting_conversion_errors() -> Iterator[None]:
    """Frames that can be decoded and not converted (sizes, pixel formats) are no reason to end a run."""
    import av

    try:
        yield
    except (av.error.FFmpegError, ValueError, MemoryError, OverflowError) as error:
        detail = "its frames are in a form that cannot be converted to pictures"
        raise RejectedFileError(Reason.UNREADABLE, detail) from error


def frame_orientation(frame: av.VideoFrame) -> int:
    """The EXIF orientation 1..8 of the frame's display matrix; 1 without one, or where it is no quarter turn."""
    data: Any
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (round(v / FIXED_POINT_ONE) for v in np.frombuffer(bytes(data), np.int32)[:5].tolist())
            return ORIENTATION_BY_MATRIX.get((a, b, c, d), 1)
    return 1


def describe_truncation(n_frames: int, last_s: float, header: ClipHeader) -> str:
    """A text about how much of a truncated clip there is; "" where it is complete."""
    if last_s >= MIN_DECODED_SHARE * header.length_s - 1.0 / max(header.frames_per_s, 1.0):
        return ""
    expected = f" of about {header.n_frames}" if header.n_frames else ""
    return f"cut off: {n_frames} frames{expected} can be decoded"


def _gray_frame(frame: av.VideoFrame) -> UInt8[Array, "h w"]:
    scale = min(1.0, SAMPLE_EDGE_PX / max(frame.width, frame.height))
    width, height = (max(16, round(side * scale)) for side in (frame.width, frame.height))
    with _rejecting_conversion_errors():
        return _first_field(frame).to_ndarray(format="gray", interpolation="AREA", width=width, height=height)


@contextlib.contextmanager
def _open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its film stream, closed afterwards; what cannot be decoded becomes a RejectedFileError."""
    import av

    try:
        options = {"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "file"}
        container = av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise RejectedFileError(Reason.UNREADABLE, error.strerror or "", where=path) from None
        detail = "no video, or one whose end, with its index, is missing"
        raise RejectedFileError(Reason.UNREADABLE, detail, where=path) from None
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise RejectedFileError(Reason.UNREADABLE, "it holds no pictures, only sound", where=path)
        if stream.codec_context is None:
            raise RejectedFileError(Reason.UNREADABLE, "nothing here decodes its codec", where=path)
        yield container, stream
