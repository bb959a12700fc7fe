"""Times in a clip as players show them."""

from __future__ import annotations

from collections.abc import Iterable


def timecode(seconds: float) -> str:
    """``0:07``, ``12:30``, ``1:02:03``; whole seconds, rounded down."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def timespans(times_s: Iterable[tuple[float, float]]) -> str:
    """``0:07–0:09, 0:30``: stretches from one time to another, in seconds."""
    texts = ((timecode(begin), timecode(end)) for begin, end in times_s)
    return ", ".join(begin if begin == end else f"{begin}–{end}" for begin, end in texts)
