"""Displays of progress: in a terminal, and in a notebook."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from quoin.flows import progress
from quoin.flows.progress import (
    PlainTextSink,
    ProgressBarSink,
    WarningSink,
    display_sink,
)
from quoin.pipeline.core.events import Reporter


def event(kind, name, time, **values):
    return {"kind": kind, "name": name, "time": time, **values}


TRAINING = [
    event("start", "train/b0", 0.0, total=100.0, unit="steps"),
    event("advance", "train/b0", 1.0, done=10.0, total=100.0, unit="steps"),
    event("advance", "train/b0", 20.0, done=50.0, total=100.0, unit="steps"),
    event("advance", "train/b0", 21.0, done=52.0, total=100.0, unit="steps"),
    event("metrics", "train/b0", 21.5, step=52, values={"loss": 0.1234, "heldout_psnr_db": 21.26}),
    event("log", "train/b0", 22.0, message="a [bracket] and a warning", level="warning"),
    event("end", "train/b0", 65.0, seconds=65.0, failed=False),
]


def test_plain_lines_are_few_and_say_how_long_it_will_take(capsys):
    sink = PlainTextSink()
    for one in TRAINING:
        sink(one)
    assert capsys.readouterr().err.splitlines() == [
        "train/b0: 50 of 100 steps, about 20 s left",
        "train/b0: warning: a [bracket] and a warning",
        "train/b0: done after 1 min 05 s",
    ]


def test_plain_lines_tell_the_last_of_each_number_and_the_time_left_that_training_knows(capsys):
    sink = PlainTextSink()
    sink(event("start", "train/b0", 0.0, total=100.0, unit="steps"))
    sink(
        event("metrics", "train/b0", 1.0, step=1, values={"loss": 0.5, "heldout_psnr_db": 21.26, "sfm_error_m": 0.0123})
    )
    sink(
        event("metrics", "train/b0", 2.0, step=2, values={"loss": 0.1234, "samples_per_ray": 16.0, "seconds_left": 7.0})
    )
    sink(event("advance", "train/b0", 20.0, done=50.0, total=100.0, unit="steps"))
    assert capsys.readouterr().err == (
        "train/b0: 50 of 100 steps, about 7.0 s left, loss 0.123, 21.3 dB, 0.0123 m off SfM points, 16 samples a ray\n"
    )


def test_a_bar_keeps_what_was_told_before():
    sink = ProgressBarSink(Console(file=io.StringIO()))
    for one in (*TRAINING[:-1], event("metrics", "train/b0", 30.0, step=60, values={"loss": 0.1})):
        sink(one)
    (bar,) = sink.progress.tasks
    assert bar.fields["note"] == "loss 0.100 21.3 dB"


def test_no_time_left_is_guessed_from_parts_that_are_unequal(capsys):
    sink = PlainTextSink()
    sink(event("start", "run", 0.0, total=7.0, unit="stages"))
    sink(event("advance", "run", 60.0, done=1.0, total=7.0, unit="stages"))
    assert capsys.readouterr().err == "run: 1 of 7 stages\n"


def test_live_bars_show_running_work_and_leave_a_line_when_it_ends():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    sink = ProgressBarSink(console)
    for one in TRAINING[:-1]:
        sink(one)
    (bar,) = sink.progress.tasks
    assert (bar.description, bar.completed, bar.total) == ("train/b0", 52, 100)
    assert bar.fields["note"] == "loss 0.123 21.3 dB"
    console.print(sink.progress)
    sink(TRAINING[-1])
    assert sink.progress.tasks == []
    shown = console.file.getvalue()
    assert "52/100 steps" in shown
    assert "a [bracket] and a warning" in shown
    assert "done in 1 min 05 s" in shown


def test_a_stage_that_starts_again_has_one_bar():
    sink = ProgressBarSink(Console(file=io.StringIO()))
    for _ in range(2):
        sink(TRAINING[0])
    assert len(sink.progress.tasks) == 1


def test_quiet_tells_warnings_only(capsys):
    sink = WarningSink()
    for one in TRAINING:
        sink(one)
    assert capsys.readouterr().err == "train/b0: warning: a [bracket] and a warning\n"


@pytest.mark.parametrize("show", ["auto", "quiet", "json"])
def test_every_display_survives_what_stages_say(show, capsys):
    import numpy as np

    with display_sink(show) as sink:
        report = Reporter(sink)
        with report.task("pose", 3, "photos") as advance:
            advance(3)
        report.log("pose", "fine")
        report.metrics("pose", 1, {"loss": 1.0})
        report.table("pose", [{"a": 1}])
        report.picture("pose", np.zeros((4, 4, 3), np.uint8))
    out, err = capsys.readouterr()
    assert "failed and was dropped" not in err
    if show == "json":
        kinds = [json.loads(line)["kind"] for line in out.splitlines()]
        assert kinds == ["start", "advance", "end", "log", "metrics", "table"]
    else:
        assert out == ""


class Display:
    """Stands in for IPython.display: keeps what is shown."""

    def __init__(self):
        self.texts = []

    def display(self, data, *, raw, display_id):
        assert raw
        assert display_id
        self.texts.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, raw: self.texts.append(data["text/plain"]))


@pytest.fixture
def notebook(monkeypatch):
    """What a Jupyter kernel shows."""
    shown = Display()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=shown))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(progress, "DISPLAY_INTERVAL_S", 0.0)
    return shown


def test_a_notebook_shows_what_runs_and_what_was_said(notebook):
    with progress.progress_sink() as sink:
        report = Reporter(sink)
        with report.task("train/b0", 10, "steps") as advance:
            advance(4)
            report.log("train/b0", "near the end", level="warning")
        assert notebook.texts[0] == "train/b0: 0 of 10 steps"
        assert notebook.texts[1] == "train/b0: 4 of 10 steps"
        assert notebook.texts[2].splitlines() == ["train/b0: warning: near the end", "train/b0: 4 of 10 steps"]
        assert notebook.texts[3].splitlines()[-1].startswith("train/b0: done after")


def test_quiet_shows_warnings_only(notebook, capsys):
    with progress.progress_sink(quiet=True) as sink:
        Reporter(sink).log("pose", "all is well")
        Reporter(sink).log("pose", "few points", level="warning")
    assert notebook.texts == []
    assert capsys.readouterr().err == "pose: warning: few points\n"


def test_outside_a_notebook_lines_are_printed(capsys):
    assert not progress.is_notebook()
    with progress.progress_sink() as sink:
        Reporter(sink).log("pose", "hello")
    assert capsys.readouterr().err == "pose: hello\n"
