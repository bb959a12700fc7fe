"""The actor: does one job after the other, keeps events until the driver asks, and saves its work when told to stop."""

from __future__ import annotations

import os
import platform
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib import metadata
from typing import Any

from quoin import __version__
from quoin.cluster.failures import WorkerStopped
from quoin.pipeline.core import cancellation
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.storage.fencing import Attempt

MAX_EVENTS = 10_000
PARENT_POLL_SECONDS = 1.0  # between two looks at whether the parent lives
EVENT_FLUSH_SECONDS = 2.0  # for the driver to hear that a job has stopped, before the process ends

JobFunction = Callable[[Reporter, str, Attempt], Any]


def package_versions() -> dict[str, str]:
    """What must be the same here and at the driver: quoin, Python to its minor, torch without its build."""
    torch = metadata.version("torch").partition("+")[0]
    return {"quoin": __version__, "Python": platform.python_version().rpartition(".")[0], "torch": torch}


class WorkerActor:
    """Made with ``max_concurrency=3``: a job, the driver's questions, and its asking to stop."""

    def __init__(self, gpu_share: float = 1.0) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._idle = threading.Event()
        self._idle.set()
        self._gpu_share = gpu_share
        self._watch_for_stop()

    def get_versions(self) -> dict[str, str]:
        """Tells that this worker has started, and with which versions."""
        return package_versions()

    def work(self, work: JobFunction, device: str, attempt: Attempt) -> tuple[Any, list[Event]]:
        """What ``work`` returns, and its last events; WorkerStopped where it was told to stop and did."""
        self._idle.clear()
        try:
            if device == "cuda" and self._gpu_share < 1:
                import torch

                torch.cuda.set_per_process_memory_fraction(self._gpu_share)
            return work(Reporter(self._events.append), device, attempt), self.take_events()
        except cancellation.WorkCancelled:
            raise WorkerStopped("it was told to stop") from None
        finally:
            self._idle.set()

    def take_events(self) -> list[Event]:
        """What has happened since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def stop(self) -> None:
        """Ask the job to save itself and stop; end where it does not, for Ray would give it five seconds more."""
        cancellation.request()
        threading.Thread(target=self._exit_unless_idle, daemon=True).start()

    def _exit_unless_idle(self) -> None:
        if not self._idle.wait(cancellation.SAVE_TIMEOUT_SECONDS):
            os._exit(0)

    def _watch_for_stop(self) -> None:
        """End, the work saved, on SIGTERM and when Ray's own process on this machine is gone.

        Python's handlers run in the main thread, which is in Ray's C++: so a byte in a pipe wakes a thread instead.
        """
        wakeup_read, wakeup_write = os.pipe()
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        threading.Thread(target=self._exit_on_stop, args=[wakeup_read, os.getppid()], daemon=True).start()

    def _exit_on_stop(self, wakeup_read: int, parent: int) -> None:
        while os.getppid() == parent:
            ready, _, _ = select.select([wakeup_read], [], [], PARENT_POLL_SECONDS)
            if ready and os.read(wakeup_read, 1) == bytes([signal.SIGTERM]):
                break
        cancellation.request()
        if self._idle.wait(cancellation.SAVE_TIMEOUT_SECONDS):
            time.sleep(EVENT_FLUSH_SECONDS)
        os._exit(0)
