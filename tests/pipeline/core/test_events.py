"""Whatever a display does, the work goes on."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from quoin.flows.progress import PlainTextSink, ProgressBarSink, WarningSink
from quoin.pipeline.core.events import JsonLinesSink, Reporter


def test_a_sink_that_raises_is_dropped_and_the_others_go_on(capsys: pytest.CaptureFixture[str]):
    seen: list[dict] = []
    calls = []

    def broken(event: dict) -> None:
        calls.append(event)
        raise RuntimeError("no terminal")

    report = Reporter(broken, seen.append)
    report.log("pose", "one")
    report.log("pose", "two")
    assert len(calls) == 1
    assert [event["message"] for event in seen] == ["one", "two"]
    assert capsys.readouterr().err.count("no terminal") == 1


def test_a_task_starts_advances_and_ends():
    seen: list[dict] = []
    with Reporter(seen.append).task("train/b0", total=10, unit="steps") as advance:
        advance(10)
    assert [event["kind"] for event in seen] == ["start", "advance", "end"]
    assert all(event["name"] == "train/b0" for event in seen)
    assert (seen[0]["total"], seen[0]["unit"], seen[1]["done"]) == (10.0, "steps", 10.0)
    assert seen[-1]["failed"] is False


def test_a_task_that_fails_ends_as_failed_and_the_error_goes_on():
    seen: list[dict] = []
    with pytest.raises(KeyError), Reporter(seen.append).task("pose", total=1):
        raise KeyError("x")
    assert seen[-1]["kind"] == "end"
    assert seen[-1]["failed"] is True


def test_progress_is_thinned_but_never_loses_the_end():
    seen: list[dict] = []
    with Reporter(seen.append).task("train", total=10_000) as advance:
        for done in range(1, 10_001):
            advance(done)
    advances = [event["done"] for event in seen if event["kind"] == "advance"]
    assert len(advances) < 1000
    assert advances[-1] == 10_000


def test_a_silent_reporter_takes_everything():
    report = Reporter()
    with report.task("a", total=0) as advance:
        advance(0)
    report.log("a", "b")
    report.metrics("a", 1, {"loss": 2})
    report.table("a", [{"x": 1}])
    report.picture("a", np.zeros((4, 4, 3), np.uint8))


def test_a_picture_travels_as_jpeg():
    seen: list[dict] = []
    rgb = np.full((8, 12, 3), 200, np.uint8)
    Reporter(seen.append).picture("fuse", rgb, "a grey wall")
    back = np.asarray(Image.open(io.BytesIO(seen[0]["jpeg"])))
    assert back.shape == (8, 12, 3)
    assert np.abs(back.astype(int) - 200).max() <= 3


def test_json_lines_are_json_one_a_line_without_pictures():
    stream = io.StringIO()
    report = Reporter(JsonLinesSink(stream))
    report.log("pose", "two\nlines")
    report.metrics("train", 3, {"loss": float(np.float32(0.5))})
    report.table("pose", [{"name": "a.jpg", "path": object}])
    report.picture("fuse", np.zeros((4, 4, 3), np.uint8))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["kind"] for event in events] == ["log", "metrics", "table"]
    assert events[0]["message"] == r"two\nlines"


def test_json_lines_give_a_name_one_line_of_progress_a_second():
    stream = io.StringIO()
    sink = JsonLinesSink(stream)
    for when, name in [(0.0, "a"), (0.5, "a"), (0.6, "b"), (1.1, "a")]:
        sink({"kind": "advance", "name": name, "time": when + 1000, "done": when})
    assert [json.loads(line)["done"] for line in stream.getvalue().splitlines()] == [0.0, 0.6, 1.1]


@pytest.mark.parametrize("sink", [PlainTextSink, WarningSink])
def test_a_line_of_the_log_is_one_line_and_steers_no_terminal(sink, capsys: pytest.CaptureFixture[str]):
    Reporter(sink()).log("ingest", "\x1b]0;pwned\x07\x1b[2J.mp4\nrun: done \u202egpj.exe", level="warning")
    shown = capsys.readouterr().err
    assert not set(shown) & set("\x1b\x07\u202e")
    assert shown.count("\n") == 1


def test_live_bars_print_no_control_characters():
    from rich.console import Console

    stream = io.StringIO()
    Reporter(ProgressBarSink(Console(file=stream, width=200))).log("ingest", "\x1b[2J\x07[red]a.jpg\u202e")
    assert not set(stream.getvalue()) & set("\x1b\x07\u202e")
    assert "[red]a.jpg" in stream.getvalue()


def test_events_are_kept_one_a_line_without_passwords():
    stream = io.StringIO()
    Reporter(JsonLinesSink(stream)).log("ingest", "from s3://KEY:SECRET@bucket/photos\n\u2028")
    assert stream.getvalue().count("\n") == len(stream.getvalue().splitlines()) == 1
    assert "SECRET" not in stream.getvalue()
