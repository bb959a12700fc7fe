"""Being asked to stop: long work looks between two steps, and saves itself before it ends.

Who asks: SIGTERM or Ctrl-C where the work has the main thread, a driver that ends, a machine that is taken away.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_SECONDS = 10.0  # what asked work has to save itself
_asked = threading.Event()


class Stopped(KeyboardInterrupt):
    """Raised by work that was asked to stop, once it has saved what it can go on from."""


def ask() -> None:
    """Ask the work of this process to stop."""
    _asked.set()


def forget() -> None:
    """The work to come is not meant."""
    _asked.clear()


def asked() -> bool:
    """Whether the work of this process is asked to stop."""
    return _asked.is_set()


def check() -> None:
    """Stopped where that is asked: for places where nothing need be saved."""
    if asked():
        raise Stopped


@contextmanager
def by_signals() -> Iterator[None]:
    """Inside, the first SIGTERM or Ctrl-C only asks; what it is else there for happens at the end, or at the second.

    Does nothing outside the main thread, which alone hears signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    heard: list[int] = []

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        heard.append(number)
        ask()
        if len(heard) > 1:
            give_back()
            signal.raise_signal(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hear)
    try:
        yield
    finally:
        give_back()
        if heard:
            forget()
            signal.raise_signal(heard[0])
