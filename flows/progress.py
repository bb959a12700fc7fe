"""Progress shown where Python code runs: in a notebook, or as the command line shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quoin.flows.cli.terminal import display_sink, format_duration
from quoin.pipeline.core.events import Event, Sink

DISPLAY_INTERVAL_S = 0.5  # between two updates of a notebook's display
MAX_SHOWN_LOG_LINES = 8


@contextmanager
def progress_sink(*, quiet: bool = False) -> Iterator[Sink]:
    """The sink that suits: a display that updates in a notebook, else bars in a terminal or lines; or warnings only."""
    if not quiet and is_notebook():
        yield NotebookSink()
    else:
        with display_sink("quiet" if quiet else "auto") as sink:
            yield sink


def is_notebook() -> bool:
    """Whether this code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


class NotebookSink:
    """Sink: running stages and blocks and the last log lines, in one output that updates. Needs no ipywidgets."""

    def __init__(self) -> None:
        self._running: dict[str, str] = {}
        self._log: list[str] = []
        self._shown_at = 0.0
        self._display: Any = None

    def __call__(self, event: Event) -> None:
        name = event["name"]
        match event["kind"]:
            case "start":
                self._running[name] = f"0 of {event['total']:g} {event['unit']}"
            case "advance":
                self._running[name] = f"{event['done']:g} of {event['total']:g} {event['unit']}"
            case "end":
                self._running.pop(name, None)
                self._log.append(
                    f"{name}: {'stopped' if event['failed'] else 'done'} after {format_duration(event['seconds'])}"
                )
            case "log":
                self._log.append(f"{name}: {'warning: ' * (event['level'] == 'warning')}{event['message']}")
            case _:
                return
        if event["kind"] in ("end", "log") or time.monotonic() - self._shown_at > DISPLAY_INTERVAL_S:
            self._show()

    def text(self) -> str:
        """The last log lines, then one line for everything that is running."""
        return "\n".join(self._log[-MAX_SHOWN_LOG_LINES:] + [f"{name}: {done}" for name, done in self._running.items()])

    def _show(self) -> None:
        from IPython.display import display

        self._shown_at = time.monotonic()
        shown = {"text/plain": self.text()}
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)
