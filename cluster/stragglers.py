"""Jobs that take far longer than their cost lets expect while workers have nothing to do: told, not doubled.

A second copy of a block's training would be a second writer of the block.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from quoin.cluster.actor_pool import JobAttempt
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import timecode

STRAGGLER_FACTOR = 2.0  # times what was expected


class Stragglers:
    """Learns seconds per cost from jobs that are done."""

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self._rates: list[float] = []
        self._reported: set[str] = set()

    def record(self, finished: JobAttempt) -> None:
        """A job has ended well."""
        if finished.job.cost > 0:
            self._rates.append((time.monotonic() - finished.began) / finished.job.cost)

    def report_slow(self, running: Sequence[JobAttempt], n_idle: int) -> None:
        """Tell, once each, of those that are far beyond their share."""
        if not self._rates or n_idle == 0:
            return
        rate, now = statistics.median(self._rates), time.monotonic()
        for attempt in running:
            expected_s, taken_s = rate * attempt.job.cost, now - attempt.began
            if attempt.job.name in self._reported or not 0 < STRAGGLER_FACTOR * expected_s < taken_s:
                continue
            self._reported.add(attempt.job.name)
            what = f"has taken {timecode(taken_s)} where {timecode(expected_s)} was expected of its size"
            idle = "a worker has" if n_idle == 1 else f"{n_idle} workers have"
            self.report.log(attempt.job.name, f"{what}, and {idle} nothing to do", level="warning")
