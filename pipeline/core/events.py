"""Progress: stages tell a Reporter what happens; sinks show it. A reporter never raises.

An event is a small dict with ``kind``, ``time`` and ``name`` ("pose", "train/b0_0_0"), so that it travels from an actor
to the driver as it is. Kinds: ``start`` (total, unit), ``advance`` (done), ``end`` (seconds, failed), ``log`` (message,
level), ``metrics`` (step, values), ``place`` (node, device), ``table`` (rows), ``picture`` (jpeg bytes, caption).
"""

from __future__ import annotations

import io
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from quoin.pipeline.core.formatting import printable

Event = dict[str, Any]
Sink = Callable[[Event], None]
Advance = Callable[[float], None]  # called with how much of a task is done so far


class Reporter:
    """Hands events to sinks. Without sinks it is silent: ``Reporter()`` is what a notebook or a test passes."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)

    def emit(self, event: Event) -> None:
        """Give one event to every sink; a sink that fails is dropped, the work goes on."""
        for sink in list(self._sinks):
            try:
                sink(event)
            except Exception as error:
                self._sinks.remove(sink)
                sentence = printable(f"quoin: a progress display failed and was dropped: {error}")
                print(sentence, file=sys.stderr)

    def _send(self, kind: str, name: str, **values: Any) -> None:
        self.emit({"kind": kind, "name": name, "time": time.time(), **values})

    @contextmanager
    def task(self, name: str, total: float, unit: str = "") -> Iterator[Callable[[float], None]]:
        """A span with a length; the yielded function is called with how much is done so far (not the increment)."""
        began = time.monotonic()
        self._send("start", name, total=float(total), unit=unit)
        last = [0.0, 0.0]

        def advance(done: float) -> None:  # told every percent, and at least ten times a second
            now = time.monotonic()
            if now - last[0] >= 0.1 or done - last[1] >= total / 100 or done >= total:
                last[:] = now, done
                self._send("advance", name, done=float(done), total=float(total), unit=unit)

        failed = True
        try:
            yield advance
            failed = False
        finally:
            self._send("end", name, seconds=time.monotonic() - began, failed=failed)

    def log(self, name: str, message: str, level: str = "info") -> None:
        """One line for a person, made printable; ``level`` is info or warning."""
        self._send("log", name, message=printable(message), level=level)

    def metrics(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step (losses, PSNR)."""
        self._send("metrics", name, step=int(step), values={k: float(v) for k, v in values.items()})

    def place(self, name: str, device: str) -> None:
        """Where the work of this name is done: on this machine, by ``device``."""
        self._send("place", name, node=platform.node(), device=device)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table to show under ``name``; a later one of the same name replaces it, but of ``blocks`` only its rows."""
        self._send("table", name, rows=[dict(row) for row in rows])

    def picture(self, name: str, rgb: np.ndarray, caption: str = "") -> None:
        """A picture uint8 [H, W, 3] to show under ``name``, sent as JPEG."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=80)
        self._send("picture", name, jpeg=buffer.getvalue(), caption=caption)


class JsonLinesSink:
    """Sink: one JSON object a line (for logs and programs); progress at most once a second per name."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if event["kind"] == "picture":
            return
        if event["kind"] in ("advance", "metrics"):
            key = event["kind"] + event["name"]
            if event["time"] - self._last.get(key, 0.0) < 1.0:
                return
            self._last[key] = event["time"]
        self._stream.write(json.dumps(event, default=str) + "\n")
        self._stream.flush()
