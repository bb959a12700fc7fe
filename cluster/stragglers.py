"""Jobs that take far longer than their cost lets expect while workers have nothing to do: told, not doubled.

A second copy of a block's training would be a second writer of the block.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from quoin.cluster.actor_pool import Try
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import clock

FAR_BEYOND = 2.0  # times what was expected


class Stragglers:
    """Learns seconds per cost from jobs that are done."""

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self._rates: list[float] = []
        self._told: set[str] = set()

    def learn(self, done: Try) -> None:
        """A job has ended well."""
        if done.job.cost > 0:
            self._rates.append((time.monotonic() - done.began) / done.job.cost)

    def look(self, running: Sequence[Try], n_idle: int) -> None:
        """Tell, once each, of those that are far beyond their share."""
        if not self._rates or n_idle == 0:
            return
        rate, now = statistics.median(self._rates), time.monotonic()
        for one in running:
            expected_s, taken_s = rate * one.job.cost, now - one.began
            if one.job.name in self._told or not 0 < FAR_BEYOND * expected_s < taken_s:
                continue
            self._told.add(one.job.name)
            what = f"has taken {clock(taken_s)} where {clock(expected_s)} was expected of its size"
            idle = "a worker has" if n_idle == 1 else f"{n_idle} workers have"
            self.report.log(one.job.name, f"{what}, and {idle} nothing to do", level="warning")
