"""Which frames of a clip are taken: the sharpest of each stretch in which the picture moves by a given share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from quoin.stages.ingest.motion import displacement

Array = np.ndarray

MIN_KEYFRAME_STEP = 0.05  # of the long edge, by which the picture moves from one frame taken to the next
UNKNOWN_MOTION = np.array([2 * MIN_KEYFRAME_STEP, 0.0])  # stands for a motion that is not known: it ends a stretch
MAX_KEYFRAME_STEP = 64.0  # step at which any clip gives a frame or two
SUFFICIENT_FRAME_SHARPNESS = (
    0.07  # sharpness at which edges still tell where they are; stretches above it are never left out
)
MIN_MEDIAN_SHARPNESS = 0.03  # usual sharpness of a clip in which nothing can be recognised again
MIN_SHARPNESS_RATIO = 0.9  # of the sharpest: the frame nearest to the middle is as good
MIN_STILL_S, MIN_STILL_RATIO = (
    2.0,
    3.0,
)  # a stretch longer than so many seconds, and so many times the usual one, is told


@dataclass(frozen=True)
class FrameSamples:
    """What is known of the frames of a clip that were looked at, n of them, in order.

    ``number`` in the clip, ``time_s`` from its start, ``motion`` of the picture's places since the one before, in long
    edges (``motion.motion``; NaN where it shows something else), and ``sharpness``.
    """

    number: Int[Array, "n"]
    time_s: Float[Array, "n"]
    motion: Float[Array, "n m 2"]
    sharpness: Float[Array, "n"]


@dataclass(frozen=True)
class ClipSegment:
    """Frames [begin, end) within a step, and which of them stands for them (all are places in ``FrameSamples``)."""

    begin: int
    end: int
    best: int


@dataclass(frozen=True)
class KeyframeChoice:
    """Frames taken (places in ``FrameSamples``), and times (from, to) in seconds that gave none or just one, and
    why."""

    selected: list[int]
    blurred_s: list[tuple[float, float]]
    still_s: list[tuple[float, float]]


def split_by_motion(samples: FrameSamples, step: float) -> list[ClipSegment]:
    """The clip cut where the picture has moved by ``step``, or shows something else.

    Motion adds up as a vector: a hand that trembles on the spot goes nowhere. What is left at the end of a clip belongs
    to the stretch before, where it is less than half a step.
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
    """Of those about as sharp as the sharpest the one nearest to the middle, so that frames stand evenly."""
    good = np.flatnonzero(sharpness >= MIN_SHARPNESS_RATIO * sharpness.max())
    return int(good[np.abs(moved[good] - step / 2).argmin()])


def choose_keyframes(samples: FrameSamples, step: float, min_sharpness: float) -> KeyframeChoice:
    """The best frame of every stretch but blurred ones; none where the whole clip is blurred.

    A stretch is blurred where its best frame is, by itself and beside ``min_sharpness`` times what is usual here.
    """
    segments = split_by_motion(samples, step)
    best = np.array([samples.sharpness[part.best] for part in segments])
    median_sharpness = float(np.median(best))
    limit = (
        np.inf
        if median_sharpness < MIN_MEDIAN_SHARPNESS and min_sharpness > 0
        else min(SUFFICIENT_FRAME_SHARPNESS, min_sharpness * median_sharpness)
    )
    sharp = best >= limit
    times = [(float(samples.time_s[part.begin]), float(samples.time_s[part.end - 1])) for part in segments]
    long = max(
        MIN_STILL_S,
        MIN_STILL_RATIO * float(np.median([end - begin for begin, end in times])) if len(segments) > 1 else 0.0,
    )
    return KeyframeChoice(
        selected=[part.best for part, kept in zip(segments, sharp, strict=True) if kept],
        blurred_s=_merge_adjacent([span for span, kept in zip(times, sharp, strict=True) if not kept]),
        still_s=[span for span, kept in zip(times, sharp, strict=True) if kept and span[1] - span[0] > long],
    )


def _merge_adjacent(times: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches that follow each other without a sharp one between them, as one."""
    out: list[tuple[float, float]] = []
    for begin, end in times:
        if out and begin - out[-1][1] < 0.5:
            out[-1] = (out[-1][0], end)
        else:
            out.append((begin, end))
    return out


def fit_keyframe_step(clips: Sequence[FrameSamples], max_frames: int) -> float:
    """The least step, MIN_KEYFRAME_STEP or more, at which all clips together give at most ``max_frames`` frames, or one
    of each clip."""

    def is_within_limit(step: float) -> bool:
        return sum(len(split_by_motion(samples, step)) for samples in clips) <= max(max_frames, len(clips))

    low, high = MIN_KEYFRAME_STEP, MIN_KEYFRAME_STEP
    while not is_within_limit(high) and high < MAX_KEYFRAME_STEP:
        low, high = high, 2 * high
    while high / low > 1.02:  # at once where the first step will do
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if is_within_limit(middle) else (middle, high)
    return high
