"""Storage that does not answer for a while: a share whose server restarts, a network that is gone for a minute."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from quoin.pipeline.core import cancellation

PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0
_NAMES = (
    "EIO ESTALE EAGAIN EREMOTEIO ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENOTCONN "
    "ECONNRESET ECONNREFUSED ECONNABORTED"
)
PASSING = {getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)}  # not every system has them all

Result = TypeVar("Result")


def passing(error: BaseException | None, folder: Path) -> bool:
    """Whether ``error``, or what it came of, may pass: no answer of the storage, or all of ``folder`` gone."""
    while error is not None:
        if isinstance(error, OSError):
            return isinstance(error, TimeoutError) or error.errno in PASSING or not os.path.exists(folder)
        error = error.__cause__
    return False


def patiently(
    work: Callable[[], Result],
    folder: Path,
    tell: Callable[[str], None],
    *,
    patience_s: float = PATIENCE_SECONDS,
) -> Result:
    """``work()``, which reads and writes in ``folder``, again and again while the storage does not answer.

    Pauses double, from one second to a quarter of a minute. After ``patience_s`` the last error is raised.
    """
    paused_s, pause_s = 0.0, FIRST_PAUSE_SECONDS
    while True:
        began = time.monotonic()
        try:
            return work()
        except Exception as error:
            if time.monotonic() - began > patience_s:  # it answered for long: this is another time
                paused_s, pause_s = 0.0, FIRST_PAUSE_SECONDS
            if not passing(error, folder) or paused_s + pause_s > patience_s:
                raise
            tell(f"the storage does not answer: trying again in {pause_s:.0f} s ({error})")
        ends = time.monotonic() + pause_s
        while time.monotonic() < ends:
            cancellation.check()
            time.sleep(0.05)
        paused_s, pause_s = paused_s + pause_s, min(2 * pause_s, LONGEST_PAUSE_SECONDS)
