"""Progress of Python code: a display that updates in a notebook, the command line's elsewhere."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from quoin.flows import progress
from quoin.pipeline.core.events import Reporter


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
