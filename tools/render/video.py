"""Frames of films: renderings as 8-bit pictures, written into a video or into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.posed_images import Rendering
from quoin.pipeline.storage.disk import disk_error

Array = np.ndarray

RenderedQuantity = Literal["colour", "normals", "depth"]

# Depth from near to far: interpolated colours whose lightness falls evenly.
DEPTH_COLORS = np.array([[253, 231, 165], [244, 157, 98], [200, 84, 104], [118, 45, 117], [40, 22, 72]], np.float64)


def output_picture(
    rendering: Rendering, output: RenderedQuantity, depth_range_m: tuple[float, float]
) -> UInt8[Array, "h w 3"]:
    """A picture of the colour, the normals or the depth of a rendering."""
    if output == "colour":
        return color_picture(rendering.color)
    if output == "normals":
        return normal_picture(rendering.normal)
    return depth_picture(rendering.depth_m, depth_range_m)


def save_picture(path: Path, rgb: UInt8[Array, "h w 3"]) -> None:
    """Write a picture, and its folder where it does not exist."""
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(path)
    except OSError as error:
        raise disk_error(error, path) from error


def color_picture(colour: Float[Array, "h w 3"]) -> UInt8[Array, "h w 3"]:
    """A picture of colours in [0, 1]."""
    return np.rint(np.clip(colour, 0.0, 1.0) * 255.0).astype(np.uint8)


def normal_picture(normal: Float[Array, "h w 3"]) -> UInt8[Array, "h w 3"]:
    """A picture of normals: red, green, blue are world x, y, z from −1 to 1; white where there is no surface."""
    has_surface = np.abs(normal).sum(axis=2, keepdims=True) > 0
    return np.where(has_surface, np.rint((normal * 0.5 + 0.5) * 255.0), 255.0).astype(np.uint8)


def depth_picture(depth_m: Float[Array, "h w"], range_m: tuple[float, float]) -> UInt8[Array, "h w 3"]:
    """A picture of depth: light is near, dark is far, linear in inverse depth; white where there is no surface."""
    near, far = range_m
    inverse = 1.0 / np.maximum(depth_m, 1e-9)
    share = np.clip((1.0 / near - inverse) / max(1.0 / near - 1.0 / far, 1e-12), 0.0, 1.0)
    at = np.linspace(0.0, 1.0, len(DEPTH_COLORS))
    rgb = np.stack([np.interp(share, at, DEPTH_COLORS[:, c]) for c in range(3)], axis=2)
    return np.where(depth_m[:, :, None] > 0, np.rint(rgb), 255.0).astype(np.uint8)


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
