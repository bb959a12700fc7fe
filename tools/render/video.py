"""Writers of frames: into a video, or into a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.disk import disk_error
from quoin.tools.render.pictures import save_picture

Array = np.ndarray
FrameWriter = Callable[[UInt8[Array, "h w 3"]], None]


@contextmanager
def open_frame_writer(out: Path, width: int, height: int, frames_per_s: int) -> Iterator[FrameWriter]:
    """A function that writes frame after frame: to a video where ``out`` ends in .mp4, else to a folder of PNGs."""
    video = out.suffix.lower() == ".mp4"
    try:
        (out.parent if video else out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, out) from error
    if video:
        with _video_writer(out, width, height, frames_per_s) as write:
            yield write
    else:
        yield _picture_writer(out)


def _picture_writer(folder: Path) -> FrameWriter:
    for stale in folder.glob("frame_*.png"):
        stale.unlink()
    count = 0

    def write(rgb: UInt8[Array, "h w 3"]) -> None:
        nonlocal count
        save_picture(folder / f"frame_{count:05d}.png", rgb)
        count += 1

    return write


@contextmanager
def _video_writer(out: Path, width: int, height: int, frames_per_s: int) -> Iterator[FrameWriter]:
    """H.264 in 4:2:0, which all players read; the file replaces ``out`` when it is complete."""
    import av

    part = out.with_name(f".{out.stem}.partial.mp4")
    try:
        with av.open(str(part), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=frames_per_s, options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

            def write(rgb: UInt8[Array, "h w 3"]) -> None:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))

            yield write
            container.mux(stream.encode())
        part.replace(out)
    except av.error.FFmpegError as error:
        what = f"Cannot write the video: {error.strerror}"
        raise QuoinError(what, where=out, hint="choose another --out") from None
    finally:
        part.unlink(missing_ok=True)
