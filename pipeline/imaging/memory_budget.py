"""How many pixels threads hold decoded at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

MAX_DECODED_PIXELS = 150_000_000  # at 10 bytes each 1.5 GB


class PixelBudget:
    """Bounds what threads hold decoded at once, about 10 bytes a pixel; a photo larger than the budget goes alone."""

    def __init__(self, pixels: int = MAX_DECODED_PIXELS) -> None:
        self._limit, self._held, self._change = pixels, 0, threading.Condition()

    @contextlib.contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until ``pixels`` fit into the budget, and reserve them inside the block."""
        with self._change:
            self._change.wait_for(lambda: self._held == 0 or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._change:
                self._held -= pixels
                self._change.notify_all()
