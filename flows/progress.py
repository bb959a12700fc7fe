"""Displays of progress: live bars in a terminal, plain lines elsewhere, one output that updates in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from quoin.pipeline.core.events import Event, JsonLinesSink, Sink
from quoin.pipeline.core.formatting import format_duration

PROGRESS_LINE_SECONDS = 10.0  # between two progress lines of one name
UNEQUAL_UNITS = ("stages", "blocks")  # their durations differ too much to estimate the time left
METRIC_FORMATS = {
    "loss": "loss {:.3f}",
    "heldout_psnr_db": "{:.1f} dB",
    "sfm_error_m": "{:.3g} m off SfM points",
    "samples_per_ray": "{:.0f} samples a ray",
}

DISPLAY_INTERVAL_S = 0.5  # between two updates of a notebook's display
MAX_SHOWN_LOG_LINES = 8

DisplayMode = Literal["auto", "json", "quiet"]


@contextmanager
def display_sink(mode: DisplayMode) -> Iterator[Sink]:
    """The sink of a display mode; ``auto``: bars in a terminal, otherwise plain lines."""
    if mode == "json":
        yield JsonLinesSink(sys.stdout)
    elif mode == "quiet":
        yield WarningSink()
    elif sys.stderr.isatty():
        live = ProgressBarSink(Console(stderr=True))
        with live.progress:
            yield live
    else:
        yield PlainTextSink()


class TimeLeftColumn(TimeRemainingColumn):
    """The time left; empty where the steps are too unequal to estimate it."""

    def render(self, task: Task) -> Text:
        return Text("") if task.fields["unit"] in UNEQUAL_UNITS else super().render(task)


class ProgressBarSink:
    """Sink: one bar per running stage and block with the time left, log lines above them."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeLeftColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._metrics: dict[str, dict[str, float]] = {}  # the latest of each name

    def __call__(self, event: Event) -> None:
        name, bar = event["name"], self._bars.get(event["name"])
        match event["kind"]:
            case "start":
                self._remove(name)
                self._bars[name] = self.progress.add_task(name, total=event["total"], unit=event["unit"], note="")
            case "advance" if bar is not None:
                self.progress.update(bar, completed=event["done"], total=event["total"])
            case "metrics" if bar is not None:
                values = self._metrics.setdefault(name, {})
                values.update(event["values"])
                self.progress.update(bar, note=_metrics(values))
            case "end":
                self._remove(name)
                if not event["failed"]:
                    self._print(name, f"done in {format_duration(event['seconds'])}", "green")
            case "log":
                self._print(name, event["message"], "yellow" if event["level"] == "warning" else "")

    def _remove(self, name: str) -> None:
        bar = self._bars.pop(name, None)
        if bar is not None:
            self.progress.remove_task(bar)

    def _print(self, name: str, message: str, style: str) -> None:
        self.progress.console.print(Text.assemble((f"{name}  ", "dim"), (message, style)))


class PlainTextSink:
    """Sink: short lines for a log file; progress at most once every PROGRESS_LINE_SECONDS per name."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._printed_at: dict[str, float] = {}
        self._metrics: dict[str, dict[str, float]] = {}  # the latest of each name

    def __call__(self, event: Event) -> None:
        name, now = event["name"], event["time"]
        match event["kind"]:
            case "start":
                self._began[name] = self._printed_at[name] = now
            case "advance" if now - self._printed_at.get(name, now) >= PROGRESS_LINE_SECONDS:
                self._printed_at[name] = now
                _line(name, self._progress(event))
            case "metrics":
                self._metrics.setdefault(name, {}).update(event["values"])
            case "end":
                _line(name, f"{'stopped' if event['failed'] else 'done'} after {format_duration(event['seconds'])}")
            case "log":
                _line(name, ("warning: " if event["level"] == "warning" else "") + event["message"])

    def _progress(self, event: Event) -> str:
        done, total = event["done"], max(event["total"], 1e-9)
        elapsed = event["time"] - self._began[event["name"]]
        text = f"{done:g} of {total:g} {event['unit']}".rstrip()
        if done <= 0 or event["unit"] in UNEQUAL_UNITS:
            return text
        values = self._metrics.get(event["name"], {})
        left = values.get("seconds_left", elapsed * (total - done) / done)
        return ", ".join(filter(None, (f"{text}, about {format_duration(left)} left", _metrics(values, ", "))))


class WarningSink:
    """Sink: warnings only."""

    def __call__(self, event: Event) -> None:
        if event["kind"] == "log" and event["level"] == "warning":
            _line(event["name"], f"warning: {event['message']}")


def _metrics(values: Mapping[str, float], between: str = " ") -> str:
    return between.join(form.format(values[name]) for name, form in METRIC_FORMATS.items() if name in values)


def _line(name: str, message: str) -> None:
    print(f"{name}: {message}", file=sys.stderr, flush=True)


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
