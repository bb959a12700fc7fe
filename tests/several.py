"""Several workers, in words: an executor that hands its jobs out as to other processes, and does them itself."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quoin.cluster.executor import InlineExecutor, Job, Outcome
from quoin.pipeline.core.events import Reporter


class Several(InlineExecutor):
    """Three workers; ``names`` of the jobs that they were given."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.names: list[str] = []

    def elsewhere(self, job: Job, report: Reporter, home: Path | None = None) -> Outcome:
        """A job as another process would get it; with ``home`` on a machine whose files are there."""
        with pytest.MonkeyPatch.context() as there:
            if home is not None:
                there.setenv("QUOIN_HOME", str(home))
            [outcome] = super().run(pickle.loads(pickle.dumps([job])), report)
        return Outcome(job, outcome.result, outcome.error)

    @contextmanager
    def session(self) -> Iterator[int]:
        yield 3
