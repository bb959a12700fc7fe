"""Frames into a video, by ffmpeg in a process of its own, or into a folder of pictures."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.errors import QuoinError
from pipeline.run import disk_error
from stages.render.picture import save

Array = np.ndarray
Write = Callable[[UInt8[Array, "h w 3"]], None]


@contextmanager
def writer(out: Path, width: int, height: int, frames_per_s: int) -> Iterator[Write]:
    """A function that takes frame after frame: of a video where ``out`` ends in .mp4, else of a folder of PNGs."""
    video = out.suffix.lower() == ".mp4"
    program = ffmpeg() if video else ""
    try:
        (out.parent if video else out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, out) from error
    if video:
        with _video(program, out, width, height, frames_per_s) as write:
            yield write
    else:
        yield _pictures(out)


def ffmpeg() -> str:
    """The program: the machine's own, else that of the package imageio-ffmpeg; QuoinError where there is neither."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise QuoinError(
            "There is no ffmpeg to write a video with",
            do="pip install 'quoin[video]', or install ffmpeg, or give --out a folder for pictures",
        ) from None


def _pictures(folder: Path) -> Write:
    for stale in folder.glob("frame_*.png"):
        stale.unlink()
    count = 0

    def write(rgb: UInt8[Array, "h w 3"]) -> None:
        nonlocal count
        save(folder / f"frame_{count:05d}.png", rgb)
        count += 1

    return write


@contextmanager
def _video(program: str, out: Path, width: int, height: int, frames_per_s: int) -> Iterator[Write]:
    """H.264 in 4:2:0, which everything plays; it takes the place of ``out`` when it is complete."""
    part = out.with_name(f".{out.stem}.partial.mp4")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_s), "-i", "-"]
    kind = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    process = subprocess.Popen(
        [program, "-y", "-loglevel", "error", *raw, *kind, str(part)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stderr is not None

    def write(rgb: UInt8[Array, "h w 3"]) -> None:
        assert process.stdin is not None
        process.stdin.write(np.ascontiguousarray(rgb).tobytes())

    try:
        with suppress(BrokenPipeError):  # ffmpeg has ended, and says below why
            yield write
            process.stdin.close()
        if process.wait() != 0:
            told = process.stderr.read().decode(errors="replace").strip()
            raise QuoinError(f"ffmpeg could not write the video: {told}", where=out, do="give --out another place")
        part.replace(out)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stderr.close()
        part.unlink(missing_ok=True)
