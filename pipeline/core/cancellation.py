"""Cancellation of the work in this process: a flag that long work checks between two steps, saving itself first.

It is set by SIGTERM or Ctrl-C where the work runs in the main thread, and by a driver or a machine that ends.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAVE_TIMEOUT_SECONDS = 10.0  # in which cancelled work has to save itself
_requested = threading.Event()


class WorkCancelled(KeyboardInterrupt):
    """Raised by work that was asked to stop, once it has saved what it can go on from."""


def request() -> None:
    """Request that the work of this process stops."""
    _requested.set()


def clear() -> None:
    """Clear the request, so that later work is not cancelled."""
    _requested.clear()


def requested() -> bool:
    """Whether a stop has been requested."""
    return _requested.is_set()


def check() -> None:
    """Raise WorkCancelled where a stop was requested; for places where nothing has to be saved."""
    if requested():
        raise WorkCancelled


@contextmanager
def request_on_signals() -> Iterator[None]:
    """Turn the first SIGTERM or Ctrl-C inside into a request; re-raise it on exit, or on the second signal.

    Does nothing outside the main thread, which alone receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    received: list[int] = []

    def restore_handlers() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        request()
        if len(received) > 1:
            restore_handlers()
            signal.raise_signal(number)

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore_handlers()
        if received:
            clear()
            signal.raise_signal(received[0])
