"""Being asked to stop: long work looks between two steps, and saves itself before it ends.

Who asks: SIGTERM or Ctrl-C where the work has the main thread, a driver that ends, a machine that is taken away.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAVE_TIMEOUT_SECONDS = 10.0  # what asked work has to save itself
_requested = threading.Event()


class WorkCancelled(KeyboardInterrupt):
    """Raised by work that was asked to stop, once it has saved what it can go on from."""


def request() -> None:
    """Ask the work of this process to stop."""
    _requested.set()


def clear() -> None:
    """The work to come is not meant."""
    _requested.clear()


def requested() -> bool:
    """Whether the work of this process is asked to stop."""
    return _requested.is_set()


def check() -> None:
    """Stopped where that is asked: for places where nothing need be saved."""
    if requested():
        raise WorkCancelled


@contextmanager
def request_on_signals() -> Iterator[None]:
    """Inside, the first SIGTERM or Ctrl-C only asks; what it is else there for happens at the end, or at the second.

    Does nothing outside the main thread, which alone hears signals.
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
