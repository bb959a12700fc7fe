"""The Ray actor of a worker: runs tasks, keeps their events until the driver asks, and lets them save on SIGTERM."""

from __future__ import annotations

import os
import pickle
import platform
import select
import signal
import threading
import time
from collections import deque
from importlib import metadata
from typing import Any

from quoin import __version__
from quoin.cluster.failures import WorkerStopped
from quoin.pipeline.core import cancellation
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.core.workers import Attempt, Device, TaskContext
from quoin.pipeline.storage.run import sync_received_runs

MAX_EVENTS = 10_000
PARENT_POLL_SECONDS = 1.0  # between two checks whether the parent process lives
EVENT_FLUSH_SECONDS = 2.0  # for the driver to hear that a task has stopped, before the process ends


def package_versions() -> dict[str, str]:
    """Versions that must equal those of the driver: quoin, Python without its patch, torch without its build."""
    torch = metadata.version("torch").partition("+")[0]
    return {"quoin": __version__, "Python": platform.python_version().rpartition(".")[0], "torch": torch}


class WorkerActor:
    """One worker. ``max_concurrency=3``: a task, calls for its events, and the call to stop."""

    def __init__(self, gpu_share: float = 1.0) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._idle = threading.Event()
        self._idle.set()
        self._gpu_share = gpu_share
        self._watch_for_stop()

    def get_versions(self) -> dict[str, str]:
        """Versions of this worker; the first answer says that it has started."""
        return package_versions()

    def run_task(self, pickled: bytes, device: Device, attempt: Attempt) -> tuple[Any, list[Event]]:
        """Result of ``step(context, *args)``, which are pickled, and its last events; WorkerStopped after SIGTERM."""
        self._idle.clear()
        try:
            if device == "cuda" and self._gpu_share < 1:
                import torch

                torch.cuda.set_per_process_memory_fraction(self._gpu_share)
            step, args = pickle.loads(pickled)  # noqa: S301  (of our own driver)
            context = TaskContext(Reporter(self._events.append), device, attempt)
            result = step(context, *args)
            sync_received_runs()
            return result, self.take_events()
        except cancellation.WorkCancelled:
            raise WorkerStopped("its worker got SIGTERM") from None
        finally:
            self._idle.set()

    def take_events(self) -> list[Event]:
        """Events since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def stop(self) -> None:
        """Ask the task to save its work and stop; end the process where it does not: Ray would wait five seconds."""
        cancellation.request()
        threading.Thread(target=self._exit_unless_idle, daemon=True).start()

    def _exit_unless_idle(self) -> None:
        if not self._idle.wait(cancellation.SAVE_TIMEOUT_SECONDS):
            os._exit(0)

    def _watch_for_stop(self) -> None:
        """Save the work and end on SIGTERM, and when Ray's own process on this machine has ended.

        Python runs signal handlers in the main thread, which is in Ray's C++ code; so a byte in a pipe wakes a thread.
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
