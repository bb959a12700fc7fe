"""Clips: frames decoded one after the other by FFmpeg's libraries, through PyAV, and never more than a few at once.

Only containers of films are opened, and no file but the clip itself: a playlist under a clip's name leads nowhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.imaging.io import turn_upright
from quoin.stages.ingest.keyframes import Seen
from quoin.stages.ingest.motion import PLACES, evened, motion, sharpness

if TYPE_CHECKING:
    import av

Array = np.ndarray

CONTAINERS = "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg,mxf,dv,nut,h264,hevc"
LOOKED_AT_PER_S = 15.0  # frames a second that are looked at; more of them tell nothing new
LOOK_EDGE_PX = 512  # long edge of the grey copy that sharpness is told by
WHOLE = 0.9  # of the length its header tells; less was cut off
JPEG_QUALITY = 95
FIXED_POINT = 1 << 16  # stands for 1 in a display matrix
# rows of a display matrix (a b; c d), x right and y down, as EXIF orientations
ORIENTATIONS = {
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
class Header:
    """What a clip says of itself; 0 where it does not. ``length_s`` in seconds."""

    length_s: float
    frames_per_s: float
    n_frames: int


@dataclass(frozen=True)
class Decoded:
    """One frame, its place in the clip, and its time in seconds from the first.

    ``aspect`` is the width of a pixel over its height.
    """

    frame: av.VideoFrame
    number: int
    time_s: float
    aspect: float


def read_header(path: Path) -> Header:
    """What the clip says of itself; QuoinError, its ``what`` fit for a table, where it is none that can be decoded."""
    with _opened(path) as (container, stream):
        length_s = float(container.duration or 0) / 1e6
        if stream.duration and stream.time_base:
            length_s = float(stream.duration * stream.time_base)
        rate = float(stream.average_rate or 0)
        return Header(length_s, rate, stream.frames or round(length_s * rate))


def frames(path: Path) -> Iterator[Decoded]:
    """All frames that can be decoded, in the order they are shown; those that arrive damaged are not counted.

    A clip that breaks off ends there. QuoinError where it is none that can be decoded.
    """
    import av

    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        aspect = float(stream.sample_aspect_ratio or 1)
        number, began, last = 0, None, 0.0
        for frame in _all_frames(container, stream, av.error.FFmpegError):
            if frame.is_corrupt:
                continue
            time_s = frame.time if frame.time is not None else last
            began = time_s if began is None else began
            last = time_s
            yield Decoded(frame, number, time_s - began, aspect)
            number += 1


def _all_frames(container: Any, stream: Any, broken: type[Exception]) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except broken:  # the file ends within a packet
            packet = None
        with contextlib.suppress(broken, EOFError):  # a damaged packet: the next may be whole
            yield from (packet.decode() if packet is not None else stream.decode(None))
        if packet is None:
            return


def look_through(path: Path, advance: Callable[[float], None] = lambda done: None) -> tuple[Seen, int, float]:
    """What there is to see in a clip, how many frames can be decoded, and the time of the last, in seconds.

    ``advance`` is called with the number of frames decoded so far.
    """
    looks: list[tuple[int, float, Array, float]] = []
    before: Array | None = None
    n_frames, last_s = 0, 0.0
    for shown in frames(path):
        n_frames, last_s = shown.number + 1, shown.time_s
        advance(n_frames)
        if looks and last_s < looks[-1][1] + 0.99 / LOOKED_AT_PER_S:
            continue
        grey = _grey(shown.frame)
        now = evened(grey)
        if before is None:
            moved = np.zeros((PLACES**2, 2), np.float32)
        elif before.shape != now.shape:
            moved = np.full((PLACES**2, 2), np.nan, np.float32)
        else:
            moved = motion(before, now)
        before = now
        looks.append((shown.number, last_s, moved, sharpness(grey)))
    if not looks:
        raise QuoinError("unreadable: none of its frames can be decoded", where=path)
    number, times_s, motions, sharp = (np.array(part) for part in zip(*looks, strict=True))
    return Seen(number, times_s, motions, sharp), n_frames, last_s


def write_frames(path: Path, targets: dict[int, Path], advance: Callable[[float], None] = lambda done: None) -> None:
    """Write frames of a clip, upright and with square pixels, as JPEG: number in the clip -> file.

    ``advance`` is called with the number of files written so far.
    """
    from PIL import Image

    left = dict(targets)
    for shown in frames(path):
        target = left.pop(shown.number, None)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".partial")
            Image.fromarray(upright(shown)).save(part, "JPEG", quality=JPEG_QUALITY)
            part.replace(target)
            advance(len(targets) - len(left))
        if not left:
            return


def upright(shown: Decoded) -> UInt8[Array, "h w 3"]:
    """The frame in RGB as it is to be seen: its pixels square, turned by its display matrix."""
    frame = shown.frame
    width = round(frame.width * shown.aspect)
    return turn_upright(frame.to_ndarray(format="rgb24", width=width, height=frame.height), orientation_of(frame))


def orientation_of(frame: av.VideoFrame) -> int:
    """The frame's display matrix as an EXIF orientation 1..8; 1 where there is none, or none of quarter turns."""
    data: Any
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (round(v / FIXED_POINT) for v in np.frombuffer(bytes(data), np.int32)[:5].tolist())
            return ORIENTATIONS.get((a, b, c, d), 1)
    return 1


def cut_off(n_frames: int, last_s: float, header: Header) -> str:
    """That a clip broke off, and how much of it there is; "" where it is whole."""
    if last_s >= WHOLE * header.length_s - 1.0 / max(header.frames_per_s, 1.0):
        return ""
    told = f" of about {header.n_frames}" if header.n_frames else ""
    return f"cut off: {n_frames} frames{told} can be decoded"


def _grey(frame: av.VideoFrame) -> UInt8[Array, "h w"]:
    scale = min(1.0, LOOK_EDGE_PX / max(frame.width, frame.height))
    width, height = (max(16, round(side * scale)) for side in (frame.width, frame.height))
    return frame.to_ndarray(format="gray", interpolation="AREA", width=width, height=height)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its film stream, closed afterwards; what cannot be decoded becomes a QuoinError."""
    import av

    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        container = av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise QuoinError(f"unreadable: {error.strerror}", where=path) from None
        raise QuoinError("unreadable: no video, or one whose end, with its index, is missing", where=path) from None
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise QuoinError("unreadable: it holds no pictures, only sound", where=path)
        if stream.codec_context is None:
            raise QuoinError("unreadable: nothing here decodes its codec", where=path)
        yield container, stream
