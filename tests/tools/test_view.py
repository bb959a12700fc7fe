"""The viewer serves a run on loopback only, calls nobody, and says what is missing."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.mesh_formats import decode_glb
from quoin.pipeline.storage.run import Run
from quoin.tools import view
from tests.stages.report.scene import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("view"), names=["a.jpg", "<b>.jpg", "line\nbreak.jpg", "d.jpg"])


def test_it_serves_the_scene_on_loopback_and_keeps_it_there(made: Run):
    pytest.importorskip("viser")
    server = view.serve_viewer(made)
    try:
        assert server.get_host() == "127.0.0.1"
        assert server.get_port() > 0
        with urllib.request.urlopen(f"http://127.0.0.1:{server.get_port()}", timeout=20) as answer:
            assert answer.status == 200
        assert server.request_share_url() is None
        assert server.get_clients() == {}
        assert view._add_confidence(server, decode_glb((made.path / "mesh.glb").read_bytes())) is not None
    finally:
        server.stop()


def test_without_viser_it_says_what_to_install(made: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(QuoinError, match=r"pip install \"viser>=1"):
        view.serve_viewer(made)


def test_without_poses_there_is_nothing_to_look_at(tmp_path: Path):
    pytest.importorskip("viser")
    with pytest.raises(QuoinError, match="nothing to view"):
        view.serve_viewer(make_run(tmp_path, names=["a.jpg"], upto="ingest"))


def test_frusta_are_sized_by_the_distance_between_cameras():
    centers = np.array([[0.0, 0, 0], [2.0, 0, 0], [4.0, 0, 0], [100.0, 0, 0]])
    assert view.camera_spacing(centers) == pytest.approx(2.0)
    assert view.camera_spacing(centers[:1]) == 1.0
    assert view.camera_spacing(np.zeros((3, 3))) == 1.0
