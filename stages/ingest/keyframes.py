"""Which frames of a clip are taken: the sharpest of each stretch in which the picture moves by a given share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from quoin.stages.ingest.motion import displacement

Array = np.ndarray

STEP = 0.05  # of the long edge, by which the picture moves from one frame taken to the next
LOST = np.array([2 * STEP, 0.0])  # stands for a motion that is not known: it ends a stretch
WIDEST = 64.0  # step at which any clip gives a frame or two
SHARP_ENOUGH = 0.07  # sharpness at which edges still tell where they are; stretches above it are never left out
ALL_BLURRED = 0.03  # usual sharpness of a clip in which nothing can be recognised again
ABOUT_AS_SHARP = 0.9  # of the sharpest: the frame nearest to the middle is as good
STILL_S, STILL = 2.0, 3.0  # a stretch longer than so many seconds, and so many times the usual one, is told


@dataclass(frozen=True)
class Seen:
    """What is known of the frames of a clip that were looked at, n of them, in order.

    ``number`` in the clip, ``time_s`` from its start, ``motion`` of the picture's places since the one before, in long
    edges (``motion.motion``; NaN where it shows something else), and ``sharpness``.
    """

    number: Int[Array, "n"]
    time_s: Float[Array, "n"]
    motion: Float[Array, "n m 2"]
    sharpness: Float[Array, "n"]


@dataclass(frozen=True)
class Stretch:
    """Frames [begin, end) within a step, and which of them stands for them (all are places in ``Seen``)."""

    begin: int
    end: int
    best: int


@dataclass(frozen=True)
class Choice:
    """Frames taken (places in ``Seen``), and times (from, to) in seconds that gave none or just one, and why."""

    taken: list[int]
    blurred_s: list[tuple[float, float]]
    still_s: list[tuple[float, float]]


def stretches(seen: Seen, step: float) -> list[Stretch]:
    """The clip cut where the picture has moved by ``step``, or shows something else.

    Motion adds up as a vector: a hand that trembles on the spot goes nowhere. What is left at the end of a clip belongs
    to the stretch before, where it is less than half a step.
    """
    begins, reached = [0], [[0.0]]
    since = np.zeros(seen.motion.shape[1:])
    for i, moved in enumerate(seen.motion[1:], 1):
        since = since + np.where(np.isnan(moved), LOST, moved)
        far = displacement(since)
        if far >= step:
            begins.append(i)
            reached.append([])
            since, far = np.zeros(seen.motion.shape[1:]), 0.0
        reached[-1].append(far)
    if len(begins) > 1 and max(reached[-1]) < step / 2 and not np.isnan(seen.motion[begins[-1]]).any():
        begins.pop()
        rest = reached.pop()
        reached[-1] += [step + far for far in rest]
    return [
        Stretch(begin, begin + len(far), begin + _best(seen.sharpness[begin : begin + len(far)], np.array(far), step))
        for begin, far in zip(begins, reached, strict=True)
    ]


def _best(sharpness: Float[Array, "n"], moved: Float[Array, "n"], step: float) -> int:
    """Of those about as sharp as the sharpest the one nearest to the middle, so that frames stand evenly."""
    good = np.flatnonzero(sharpness >= ABOUT_AS_SHARP * sharpness.max())
    return int(good[np.abs(moved[good] - step / 2).argmin()])


def choose(seen: Seen, step: float, min_sharpness: float) -> Choice:
    """The best frame of every stretch but blurred ones; none where the whole clip is blurred.

    A stretch is blurred where its best frame is, by itself and beside ``min_sharpness`` times what is usual here.
    """
    cut = stretches(seen, step)
    best = np.array([seen.sharpness[part.best] for part in cut])
    usual = float(np.median(best))
    limit = np.inf if usual < ALL_BLURRED and min_sharpness > 0 else min(SHARP_ENOUGH, min_sharpness * usual)
    sharp = best >= limit
    times = [(float(seen.time_s[part.begin]), float(seen.time_s[part.end - 1])) for part in cut]
    long = max(STILL_S, STILL * float(np.median([end - begin for begin, end in times])) if len(cut) > 1 else 0.0)
    return Choice(
        taken=[part.best for part, kept in zip(cut, sharp, strict=True) if kept],
        blurred_s=_joined([span for span, kept in zip(times, sharp, strict=True) if not kept]),
        still_s=[span for span, kept in zip(times, sharp, strict=True) if kept and span[1] - span[0] > long],
    )


def _joined(times: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches that follow each other without a sharp one between them, as one."""
    out: list[tuple[float, float]] = []
    for begin, end in times:
        if out and begin - out[-1][1] < 0.5:
            out[-1] = (out[-1][0], end)
        else:
            out.append((begin, end))
    return out


def step_for(clips: Sequence[Seen], most: int) -> float:
    """The least step, STEP or more, at which all clips together give at most ``most`` frames, or one of each clip."""

    def few(step: float) -> bool:
        return sum(len(stretches(seen, step)) for seen in clips) <= max(most, len(clips))

    low, high = STEP, STEP
    while not few(high) and high < WIDEST:
        low, high = high, 2 * high
    while high / low > 1.02:  # at once where the first step will do
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if few(middle) else (middle, high)
    return high
