"""A run under a real Prefect server: stages as tasks, artifacts, failures, and a server that goes away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from flows.ui import answers
from tests.flows.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ["ingest", "pose", "partition", "priors", "train", "fuse", "report"]


@pytest.fixture
def server(tmp_path):
    """(process, API address) of ``quoin ui`` on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"QUOIN_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "ui", "--port", str(port)]
    with open(tmp_path / "ui.log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + 120
    while not answers(url):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert f"export PREFECT_API_URL={url}" in (tmp_path / "ui.log").read_text()
    yield process, url
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


def ask(url, what):
    request = urllib.request.Request(f"{url}/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def test_stages_are_tasks_and_a_server_that_goes_away_takes_nothing_along(server, quoin, reconstruct):
    process, url = server
    assert reconstruct("-q", FAKE_FAIL="fuse", PREFECT_API_URL=url).returncode == 2
    done = reconstruct(PREFECT_API_URL=url)
    assert done.returncode == 0
    assert "shown at http://127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert quoin.began().count("train/b0") == 1

    flows = {flow["state"]["type"]: flow for flow in ask(url, "flow_runs")}
    assert set(flows) == {"FAILED", "COMPLETED"}
    assert flows["COMPLETED"]["parameters"] == {"photos": str(quoin.folder / "photos"), "out": str(quoin.run)}
    tasks = ask(url, "task_runs")
    mine = [t for t in tasks if t["flow_run_id"] == flows["COMPLETED"]["id"]]
    assert {t["name"] for t in mine} == set(STAGES)
    assert {t["state"]["type"] for t in mine} == {"COMPLETED"}
    artifacts = {(a["flow_run_id"], a["key"]): a["data"] for a in ask(url, "artifacts")}
    first, second = flows["FAILED"]["id"], flows["COMPLETED"]["id"]
    assert artifacts[second, "progress-run"] == 100
    assert json.loads(artifacts[second, "table-result-pose"]) == [{"what": "value", "value": "0"}]
    assert f"`{quoin.run / 'report.html'}`" in artifacts[second, "report"]
    assert 0 < artifacts[first, "progress-run"] < 100, "as far as it came"
    assert artifacts[first, "progress-train-b0"] == 100
    assert {row["block"] for row in json.loads(artifacts[first, "table-blocks"])} == {"b0", "b1"}

    waiting = {"FAKE_WAIT": "priors", "FAKE_SECONDS": "10"}
    running = quoin.start("resume", "run", "--force", "pose", PREFECT_API_URL=url, **waiting)
    deadline = time.monotonic() + 60
    while not (quoin.run / "waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "Prefect is gone" in err
    assert "Traceback" not in err
    assert quoin.began() == ["pose", "partition", "priors", "train/b1", "train/b0", "fuse", "report"]


def test_stopping_a_run_under_prefect_leaves_it_resumable(server, quoin):
    _, url = server
    for stop, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = quoin.start("reconstruct", "photos", "--out", "run", PREFECT_API_URL=url, FAKE_WAIT="pose")
        deadline = time.monotonic() + 60
        while not (quoin.run / "waiting").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (quoin.run / "waiting").unlink()
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert f"quoin resume {quoin.run}" in err
        assert "Traceback" not in err
