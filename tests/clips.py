"""Small clips written for tests: a camera that looks through a window at a large picture, moved from frame to frame."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from scipy.ndimage import gaussian_filter

Array = np.ndarray
WIDTH, HEIGHT = 320, 240


@functools.cache
def wall(seed: int = 0) -> Array:
    """A picture with detail at all scales, uint8 [400, 2400, 3]."""
    rng = np.random.default_rng(seed)
    grey = sum(gaussian_filter(rng.standard_normal((400, 2400)), s) * s for s in (1.0, 2.0, 5.0, 12.0))
    tint = 12.0 * gaussian_filter(rng.standard_normal((400, 2400, 3)), (12.0, 12.0, 0))  # coarse, as 4:2:0 keeps it
    mixed = np.asarray(grey)[..., None] + tint
    return np.clip(128.0 + 45.0 * mixed / mixed.std(), 10.0, 245.0).astype(np.uint8)


def pan(lefts: Iterable[float], seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Array]:
    """What a window of ``size`` sees whose left edge lies at each of ``lefts``, in pixels of the wall."""
    width, height = size
    return [wall(seed)[60 : 60 + height, round(left) : round(left) + width] for left in lefts]


def blurred(frames: Sequence[Array], sigma_px: float) -> list[Array]:
    """The frames out of focus."""
    return [gaussian_filter(frame, (sigma_px, sigma_px, 0)) for frame in frames]


def write_clip(
    path: Path,
    frames: Sequence[Array],
    rate: int = 30,
    codec: str = "libx264",
    times_s: Sequence[float] | None = None,
    matrix: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    **options: Any,
) -> Path:
    """Write RGB frames, at ``times_s`` or evenly at ``rate``; ``matrix``: a, b, c, d of the display matrix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "18"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            a, b, c, d = matrix
            stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        for i, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (times_s[i] if times_s is not None else i / rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
