"""The command line on a run in object storage, over light stages."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.flows.cli import app
from quoin.flows.cli.options import DisplayOptions
from quoin.flows.session import resume_run
from quoin.pipeline.core.config import StageResult
from quoin.pipeline.scene.photo_table import PhotoRow, to_local_path, to_stored_path, write_photo_table
from quoin.pipeline.storage.object_store import Bucket
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.mesh import Mesh, write_glb
from quoin.tools.view import serve_viewer
from tests.fixtures import ball_scene
from tests.fixtures.s3_server import Door
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
    names = {name for name, _, _ in Bucket(url).list_objects()}
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


@pytest.mark.slow
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
        ("ftp://host/run", "quoin does not support this kind of storage"),
        ("s3://no-such-bucket/run", "There is no such bucket"),
    ],
)
def test_what_cannot_be_a_home_is_refused_in_a_sentence(bucket: str, tmp_path, capsys, monkeypatch, out, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert app.run_command(["reconstruct", "photos", "--out", out, "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_storage_that_is_away_is_refused_in_a_sentence(bucket: str, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("quoin.pipeline.storage.object_store.REQUEST_RETRY_SECONDS", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert app.run_command(["resume", f"{bucket}/run", "--device", "cpu"]) == 2
    assert "The storage has not answered for 1 s" in capsys.readouterr().err


def test_once_the_storage_is_away_it_is_asked_for_nothing_more(bucket: str, s3: str, tmp_path, monkeypatch):
    monkeypatch.setattr("quoin.pipeline.storage.object_store.REQUEST_RETRY_SECONDS", 2.0)
    door = Door(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.address)
    door.open()
    Run.create(f"{bucket}/run", photos=tmp_path, settings={}, seed=0)

    def work() -> None:
        with resume_run(f"{bucket}/run") as run, DisplayOptions(quiet=True).reporter(run) as report:
            report.log("run", "a line that belongs home")
            door.shut()
            run.save()

    asked: list[str] = []
    get, upload_file = Bucket.get, Bucket.upload_file
    monkeypatch.setattr(Bucket, "get", lambda self, name: asked.append(name) or get(self, name))
    monkeypatch.setattr(
        Bucket, "upload_file", lambda self, name, path: asked.append(name) or upload_file(self, name, path)
    )
    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 2
    assert asked == ["run.json", "run.json"], "before the door was shut; nothing is looked for or brought home after it"


def test_what_another_machine_did_meanwhile_is_gone_on_with(bucket: str, tmp_path, monkeypatch):
    url = f"{bucket}/run"
    for machine in ("one", "other", "one"):
        monkeypatch.setenv("QUOIN_HOME", str(tmp_path / machine))
        if not Run.exists(url):
            Run.create(url, photos=tmp_path, settings={}, seed=0)
        with resume_run(url) as run, DisplayOptions(quiet=True).reporter(run) as report:
            report.log("run", machine)
    told = [json.loads(line)["message"] for line in (Bucket(url).read("logs/events.jsonl") or b"").splitlines()]
    assert told == ["one", "other", "one"]


def test_photos_may_lie_at_a_url(quoin: Quoin, bucket: str):
    Bucket(f"{bucket}/photos").put("a.jpg", b"no matter to light stages")
    made = quoin("reconstruct", f"{bucket}/photos", "--out", "run")
    assert made.returncode == 0, made.stderr
    assert json.loads((quoin.run / "run.json").read_text())["photos"] == f"{bucket}/photos"
    run = Run.open(quoin.run)
    assert [path.name for path in run.photos.iterdir()] == ["a.jpg"]
    assert to_local_path(run, to_stored_path(run, str(run.photos / "a.jpg"))) == str(run.photos / "a.jpg")
    assert to_stored_path(run, str(run.photos / "a.jpg")) == "photos:a.jpg"
    nothing = quoin("reconstruct", f"{bucket}/none", "--out", "other")
    assert nothing.returncode == 2
    assert "There are no photos here" in nothing.stderr


def test_demo_and_masks_want_folders(bucket: str, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert app.run_command(["demo", "--out", f"{bucket}/demo"]) == 2
    assert "folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Fused(StageResult):
    n_faces: int
    glb_faces: int


@pytest.fixture
def fused(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a run of the ball scene with the true ball as its mesh; this process then is on another machine."""
    url = f"{bucket}/run"
    run = ball_scene.make_run(tmp_path, n_photos=5, width=64, height=48, n_points=120, place=url)
    ball = trimesh.creation.icosphere(3, ball_scene.BALL_RADIUS).apply_translation(ball_scene.BALL_CENTRE)
    ball.visual.vertex_colors = np.full((len(ball.vertices), 4), 200, np.uint8)
    ball.export(run.path / "mesh.ply")
    colors = np.full((len(ball.vertices), 3), 200, np.uint8)
    surface = Mesh(np.array(ball.vertices), np.array(ball.faces), colors, {"confidence": np.ones(len(ball.vertices))})
    write_glb(run.path / "mesh.glb", surface, surface.vertex_normals())
    ball.export(tmp_path / "truth.ply")
    names = [f"{k}.jpg" for k in range(5)]
    write_photo_table(run, [PhotoRow(name=name, path=f"/photos/{name}", photo_id=k) for k, name in enumerate(names)])
    run.storage.upload_outputs("ingest")
    run.commit("ingest", "ingest-key", StageResult(), 0.0)
    run.storage.upload_outputs("fuse")
    run.commit("fuse", "fuse-key", Fused(n_faces=len(ball.faces), glb_faces=len(ball.faces)), 0.0)
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    return url


def test_from_another_machine_a_run_is_exported_evaluated_and_viewed(
    fused: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert app.run_command(["export", fused, "--format", "ply", "--out", str(tmp_path / "out.ply"), "-q"]) == 0
    assert (tmp_path / "out.ply").read_bytes() == (tmp_path / "truth.ply").read_bytes()
    assert app.run_command(["export", fused, "--format", "nerfstudio", "-q"]) == 0
    assert f"{fused}/exports/nerfstudio" in capsys.readouterr().out
    here = Bucket(fused)
    (tmp_path / "cameras.json").write_bytes(here.read("exports/nerfstudio/transforms.json") or b"")
    truth, cameras = str(tmp_path / "truth.ply"), str(tmp_path / "cameras.json")
    assert app.run_command(["evaluate", fused, "--truth", truth, "--cameras", cameras, "-q"]) == 0
    assert f"{fused}/evaluation.json" in capsys.readouterr().out
    scores = json.loads(here.read("evaluation.json") or b"")["surface"]["scores"]
    assert min(score["f_score"] for score in scores) > 0.9
    pytest.importorskip("viser", reason="viser is not installed")
    server = serve_viewer(Run.open(fused))
    assert server.get_port() > 0
    server.stop()
