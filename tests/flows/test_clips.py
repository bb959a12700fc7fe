"""Videos from the command line on: beside photos, by themselves, and as far as a plan."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from quoin.flows import pipeline
from quoin.flows.cli.app import run_command
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.run import Run
from tests.fixtures.video_clips import pan, write_clip
from tests.stages.pose.room import render


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where photos/ with one photo and walk.mp4 lie."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(pan([1500.0])[0]).save(tmp_path / "photos" / "a.jpg")
    write_clip(tmp_path / "walk.mp4", pan(np.arange(60) * 3.0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ingest_only(monkeypatch):
    def refuse(*_):
        raise QuoinError("Enough", where="pose", hint="stop here")

    stages = [dataclasses.replace(stage, run=refuse) if stage.name == "pose" else stage for stage in pipeline.STAGES]
    monkeypatch.setattr(pipeline, "STAGES", stages)


def test_a_video_beside_photos_in_any_order(folder, ingest_only, capsys):
    assert run_command(["reconstruct", "walk.mp4", "photos", "--engine", "direct"]) == 2
    made = Run.open(folder / "runs" / "photos")
    assert (made.photos, made.clips) == (folder / "photos", [folder / "walk.mp4"])
    rows = [row for row in read_photo_table(made) if row.used]
    assert [row.clip for row in rows] == [""] + ["walk.mp4"] * (len(rows) - 1)
    assert len(rows) > 5
    told = capsys.readouterr()
    assert "walk.mp4: " in told.out + told.err
    (clip,) = json.loads((made.path / "report.json").read_text())["clips"]
    assert (clip["n_taken"], clip["n_placed"]) == (len(rows) - 1, None)
    before = made.require("ingest").key
    assert run_command(["resume", "runs/photos", "--engine", "direct"]) == 2
    assert Run.open(made.path).require("ingest").key == before


def test_a_video_by_itself(folder, ingest_only):
    assert run_command(["plan", "walk.mp4", "--engine", "direct"]) == 2
    made = Run.open(folder / "runs" / "walk")
    assert (made.photos, made.clips) == (folder / "walk.mp4", [])
    assert {row.clip for row in read_photo_table(made)} == {"walk.mp4"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos", "more"], "There are two folders of photos ('more')"),
        (["photos", "absent.mp4"], "There are no photos here ('absent.mp4')"),
        (["text.mp4"], "neither a folder of photos nor a video"),
    ],
)
def test_what_is_refused(folder, arguments, sentence, capsys):
    (folder / "more").mkdir()
    (folder / "text.mp4").write_text("hello")
    assert run_command(["reconstruct", *arguments, "--out", "run", "--engine", "direct"]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_walk_on_film_is_planned(tmp_path, monkeypatch, capsys):
    """An arc before the corner of a room, from a camera whose focal length nothing tells."""
    angles = np.radians(np.linspace(15, 75, 60))
    centers = np.stack([4.2 * np.cos(angles), 4.2 * np.sin(angles), 1.8 + 0.6 * np.sin(4 * angles)], axis=1)
    target = np.array([0.9, 0.9, 0.8])
    write_clip(tmp_path / "corner.mp4", [render(look_at(c, target), factor=1) for c in centers])
    monkeypatch.chdir(tmp_path)
    assert (
        run_command(["plan", "corner.mp4", "--out", "run", "--engine", "direct", "--set", "pose.max_edge_px=400"]) == 0
    )
    made = Run.open(tmp_path / "run")
    used, posed = made.require("ingest").result["n_used"], made.require("pose").result["n_registered"]
    assert used >= 6
    assert posed >= 0.9 * used
    assert "continue with: quoin resume" in capsys.readouterr().out
