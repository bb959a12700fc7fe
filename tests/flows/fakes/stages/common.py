"""What every fake stage does: count its runs, wait or fail where it is told to."""

from __future__ import annotations

import errno
import os
import time

import numpy as np

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

PARTS = 4  # that a stage writes


class FakeConfig(StageConfig):
    value: int = 0  # anything that changes the key


class FakeResult(StageResult):
    value: int


def behave(name: str, run: Run, config: FakeConfig, report: Reporter) -> FakeResult:
    """Note that ``name`` began. FAKE_WAIT=<name> waits FAKE_SECONDS, FAKE_FAIL, _FULL and _BREAK go wrong.

    FAKE_PACE=<seconds> takes so long, and leaves ``value`` in the store, part by part.
    """
    with open(run.path / "began.txt", "a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    with report.task(name, 2, "steps") as advance:
        advance(1)
        if os.environ.get("FAKE_WAIT") == name:
            (run.path / "waiting").write_text(str(os.getpid()))
            time.sleep(float(os.environ.get("FAKE_SECONDS", "240")))
        if os.environ.get("FAKE_FAIL") == name:
            raise QuoinError("Nothing fits", where=name, hint="take more photos")
        if os.environ.get("FAKE_FULL") == name:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        if os.environ.get("FAKE_BREAK") == name:
            raise ZeroDivisionError("a mistake of ours")
        if pace := float(os.environ.get("FAKE_PACE", "0")):
            for part in range(PARTS):
                arrays.write_array(run.scene, f"paced/{name}/{part}", np.full(4, config.value))
                time.sleep(pace / PARTS)
        advance(2)
    report.log(name, "hello")
    return FakeResult(value=config.value)
