"""The command line on a run in object storage, over light stages."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from flows import cli
from pipeline.bucket import Bucket
from pipeline.run import Run
from tests.flows.conftest import Quoin


def wait_for(quoin: Quoin, name: str) -> Path:
    """The working folder of the run, once the file ``name`` is in it."""
    deadline = time.monotonic() + 120
    while not (found := list((quoin.folder / "home").glob(f"cache/runs/*/{name}"))):
        assert quoin.processes[-1].poll() is None, quoin.processes[-1].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0].parent


def test_a_run_at_a_url_from_start_to_end(quoin: Quoin, bucket: str):
    url = f"{bucket}/runs/castle"
    made = quoin("reconstruct", "photos", "--out", url)
    assert made.returncode == 0, made.stderr
    assert f"  {url}/report.html" in made.stdout
    names = {name for name, _, _ in Bucket(url).names()}
    assert {"run.json", "report.html", "logs/events.jsonl"} <= names
    assert "logs/lease.json" not in names
    assert not (quoin.folder / "s3:").exists()
    quoin.run = wait_for(quoin, "began.txt")
    assert "train/b1" in quoin.began()
    again = quoin("resume", url, QUOIN_HOME=str(quoin.folder / "another machine"))
    assert again.returncode == 0, again.stderr
    assert quoin.began() == []
    forced = quoin("resume", url, "--force", "fuse")
    assert forced.returncode == 0, forced.stderr
    assert quoin.began() == ["fuse", "report"]


def test_a_second_driver_is_refused_and_goes_on_once_the_first_was_killed(quoin: Quoin, bucket: str):
    url = f"{bucket}/run"
    first = quoin.start("reconstruct", "photos", "--out", url, FAKE_WAIT="priors")
    quoin.run = wait_for(quoin, "waiting")
    second = quoin("resume", url)
    assert second.returncode == 2
    assert f"Another quoin works on this run (process {first.pid} on " in second.stderr
    first.send_signal(signal.SIGKILL)
    first.wait()
    quoin.began()
    third = quoin("resume", url)
    assert third.returncode == 0, third.stderr
    assert f"process {first.pid}" in third.stderr
    assert "going on in its place" in third.stderr
    assert quoin.began()[0] == "priors", "what was committed is kept"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("ftp://host/run", "quoin knows no storage of this kind"),
        ("s3://no-such-bucket/run", "There is no such bucket"),
    ],
)
def test_what_cannot_be_a_home_is_refused_in_a_sentence(bucket: str, tmp_path, capsys, monkeypatch, out, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert cli.run(["reconstruct", "photos", "--out", out, "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_storage_that_is_away_is_refused_in_a_sentence(bucket: str, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.bucket.PATIENCE_SECONDS", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert cli.run(["resume", f"{bucket}/run", "--device", "cpu"]) == 2
    assert "The storage has not answered for 1 s" in capsys.readouterr().err


def test_photos_may_lie_at_a_url(quoin: Quoin, bucket: str):
    Bucket(f"{bucket}/photos").put("a.jpg", b"no matter to light stages")
    made = quoin("reconstruct", f"{bucket}/photos", "--out", "run")
    assert made.returncode == 0, made.stderr
    assert json.loads((quoin.run / "run.json").read_text())["photos"] == f"{bucket}/photos"
    run = Run.open(quoin.run)
    assert [path.name for path in run.photos.iterdir()] == ["a.jpg"]
    assert run.local(run.portable(str(run.photos / "a.jpg"))) == str(run.photos / "a.jpg")
    assert run.portable(str(run.photos / "a.jpg")) == "photos:a.jpg"
    nothing = quoin("reconstruct", f"{bucket}/none", "--out", "other")
    assert nothing.returncode == 2
    assert "There are no photos here" in nothing.stderr


def test_demo_and_masks_want_folders(bucket: str, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo", "--out", f"{bucket}/demo"]) == 2
    assert "folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
