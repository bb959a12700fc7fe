"""Stragglers: tasks that take far longer than their cost lets expect, while workers are idle. They are logged only.

A second copy of a block's training would be a second writer of the block.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from quoin.cluster.actor_pool import TaskAttempt
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import timecode

STRAGGLER_FACTOR = 2.0  # times the expected duration


class Stragglers:
    """Learns seconds per cost from tasks that are done."""

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self._rates: list[float] = []
        self._reported: set[str] = set()

    def record(self, finished: TaskAttempt) -> None:
        """Take note of a task that has ended well."""
        if finished.task.cost > 0:
            self._rates.append((time.monotonic() - finished.began) / finished.task.cost)

    def report_slow(self, running: Sequence[TaskAttempt], n_idle: int) -> None:
        """Log, once each, the tasks that take far longer than expected."""
        if not self._rates or n_idle == 0:
            return
        rate, now = statistics.median(self._rates), time.monotonic()
        for attempt in running:
            expected_s, taken_s = rate * attempt.task.cost, now - attempt.began
            if attempt.task.name in self._reported or not 0 < STRAGGLER_FACTOR * expected_s < taken_s:
                continue
            self._reported.add(attempt.task.name)
            what = f"has taken {timecode(taken_s)} where {timecode(expected_s)} was expected of its size"
            idle = "a worker has" if n_idle == 1 else f"{n_idle} workers have"
            self.report.log(attempt.task.name, f"{what}, and {idle} nothing to do", level="warning")
