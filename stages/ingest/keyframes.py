"""Keyframes of a clip: the sharpest frame of each segment in which the picture moves by a given share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from quoin.stages.ingest.motion import displacement

Array = np.ndarray

MIN_KEYFRAME_STEP = 0.05  # of the long edge: how far the picture moves from one keyframe to the next
UNKNOWN_MOTION = np.array([2 * MIN_KEYFRAME_STEP, 0.0])  # where the motion could not be measured: it ends a segment
MAX_KEYFRAME_STEP = 64.0  # at this step any clip gives a frame or two
SUFFICIENT_FRAME_SHARPNESS = 0.07  # edges can still be located; segments above it are never left out
MIN_MEDIAN_SHARPNESS = 0.03  # a clip whose median is lower shows nothing that could be recognized again
MIN_SHARPNESS_RATIO = 0.9  # of the sharpest frame: among these the one nearest to the middle is taken
# A segment is reported as still where it is longer than both.
MIN_STILL_S = 2.0
MIN_STILL_RATIO = 3.0  # times the median segment


@dataclass(frozen=True)
class FrameSamples:
    """Measurements of n frames of a clip, in order.

    ``number`` is that in the clip, ``time_s`` counts from its start. ``motion`` is that of the picture's places since
    the frame before, in long edges (``motion.estimate_motion``; NaN where the frames show different things).
    """

    number: Int[Array, "n"]
    time_s: Float[Array, "n"]
    motion: Float[Array, "n m 2"]
    sharpness: Float[Array, "n"]


@dataclass(frozen=True)
class ClipSegment:
    """Frames [begin, end) within one step, and the best of them; all are indices into ``FrameSamples``."""

    begin: int
    end: int
    best: int


@dataclass(frozen=True)
class KeyframeChoice:
    """Frames to take (indices into ``FrameSamples``), and spans in seconds that gave none (blurred) or one (still)."""

    selected: list[int]
    blurred_s: list[tuple[float, float]]
    still_s: list[tuple[float, float]]


def split_by_motion(samples: FrameSamples, step: float) -> list[ClipSegment]:
    """Cut the clip where the picture has moved by ``step``, or shows something else.

    Motion adds up as a vector, so that a trembling hand does not count. The rest at the end of a clip joins the segment
    before it, where it is shorter than half a step.
    """
    begins, displacements = [0], [[0.0]]
    accumulated = np.zeros(samples.motion.shape[1:])
    for i, moved in enumerate(samples.motion[1:], 1):
        accumulated = accumulated + np.where(np.isnan(moved), UNKNOWN_MOTION, moved)
        distance = displacement(accumulated)
        if distance >= step:
            begins.append(i)
            displacements.append([])
            accumulated, distance = np.zeros(samples.motion.shape[1:]), 0.0
        displacements[-1].append(distance)
    if len(begins) > 1 and max(displacements[-1]) < step / 2 and not np.isnan(samples.motion[begins[-1]]).any():
        begins.pop()
        last = displacements.pop()
        displacements[-1] += [step + distance for distance in last]
    return [
        ClipSegment(
            begin,
            begin + len(distance),
            begin + _best_frame(samples.sharpness[begin : begin + len(distance)], np.array(distance), step),
        )
        for begin, distance in zip(begins, displacements, strict=True)
    ]


def _best_frame(sharpness: Float[Array, "n"], moved: Float[Array, "n"], step: float) -> int:
    """Of the frames about as sharp as the sharpest, the one nearest to the middle, for even spacing."""
    good = np.flatnonzero(sharpness >= MIN_SHARPNESS_RATIO * sharpness.max())
    return int(good[np.abs(moved[good] - step / 2).argmin()])


def choose_keyframes(samples: FrameSamples, step: float, min_sharpness: float) -> KeyframeChoice:
    """The best frame of every segment that is not blurred; none where the whole clip is blurred.

    A segment is blurred where its best frame is: below SUFFICIENT_FRAME_SHARPNESS, and below ``min_sharpness`` times
    the median of the best frames.
    """
    segments = split_by_motion(samples, step)
    limit = _min_segment_sharpness(samples.sharpness[[segment.best for segment in segments]], min_sharpness)
    sharp = [segment for segment in segments if samples.sharpness[segment.best] >= limit]
    blurred = [segment for segment in segments if samples.sharpness[segment.best] < limit]
    spans = [_time_span(samples, segment) for segment in segments]
    usual_s = float(np.median([end - begin for begin, end in spans])) if len(segments) > 1 else 0.0
    still_s = max(MIN_STILL_S, MIN_STILL_RATIO * usual_s)
    sharp_spans = [_time_span(samples, segment) for segment in sharp]
    return KeyframeChoice(
        selected=[segment.best for segment in sharp],
        blurred_s=_merge_adjacent([_time_span(samples, segment) for segment in blurred]),
        still_s=[(begin, end) for begin, end in sharp_spans if end - begin > still_s],
    )


def _min_segment_sharpness(best: Float[Array, "n"], min_sharpness: float) -> float:
    """The sharpness that a segment's best frame must have; ``best``: that of all segments of the clip."""
    median_sharpness = float(np.median(best))
    if min_sharpness > 0 and median_sharpness < MIN_MEDIAN_SHARPNESS:
        return float("inf")
    return min(SUFFICIENT_FRAME_SHARPNESS, min_sharpness * median_sharpness)


def _time_span(samples: FrameSamples, segment: ClipSegment) -> tuple[float, float]:
    """Times of a segment's first and last frame, in seconds."""
    return float(samples.time_s[segment.begin]), float(samples.time_s[segment.end - 1])


def _merge_adjacent(times: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans less than half a second apart, joined."""
    out: list[tuple[float, float]] = []
    for begin, end in times:
        if out and begin - out[-1][1] < 0.5:
            out[-1] = (out[-1][0], end)
        else:
            out.append((begin, end))
    return out


def fit_keyframe_step(clips: Sequence[FrameSamples], max_frames: int) -> float:
    """The smallest step, at least MIN_KEYFRAME_STEP, at which all clips together give at most ``max_frames`` frames.

    Of more clips than that, each gives one frame.
    """

    def is_within_limit(step: float) -> bool:
        return sum(len(split_by_motion(samples, step)) for samples in clips) <= max(max_frames, len(clips))

    low, high = MIN_KEYFRAME_STEP, MIN_KEYFRAME_STEP
    while not is_within_limit(high) and high < MAX_KEYFRAME_STEP:
        low, high = high, 2 * high
    while high / low > 1.02:  # skipped where the first step is wide enough
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if is_within_limit(middle) else (middle, high)
    return high
