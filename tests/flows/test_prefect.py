"""A run under a real Prefect server: stages as tasks, artifacts, failures, and a server that goes away."""

from __future__ import annotations

import functools
import http.server
import json
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from tests.fixtures.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.flows.conftest import ask, request, serving, set_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ["ingest", "pose", "partition", "priors", "train", "fuse", "report"]


@pytest.fixture
def server(tmp_path):
    """(process, API address) of ``quoin ui``."""
    with serving(tmp_path) as served:
        assert f"export PREFECT_API_URL={served[1]} PREFECT_API_AUTH_STRING=quoin:" in (tmp_path / "ui.log").read_text()
        yield served


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
    assert json.loads(artifacts[second, "table-result-pose"]) == [{"what": "value", "value": "15"}]
    assert f"`{quoin.run / 'report.html'}`" in artifacts[second, "report"]
    assert 0 < artifacts[first, "progress-run"] < 100, "as far as it came"
    assert not any(key and key.startswith("progress-train-") for _, key in artifacts), "single blocks are in the table"
    rows = json.loads(artifacts[first, "table-blocks"])
    assert {(row["block"], row["state"], row["device"]) for row in rows} == {(b, "done", "cpu") for b in ("b0", "b1")}
    assert "data:image/jpeg;base64" in artifacts[first, "picture-block-map"]
    assert all(
        task["state"]["type"] == "FAILED" for task in tasks if (task["name"], task["flow_run_id"]) == ("fuse", first)
    )

    waiting = {"FAKE_WAIT": "priors", "FAKE_SECONDS": "10"}
    running = quoin.start("resume", "run", "--force", "pose", PREFECT_API_URL=url, **waiting)
    quoin.wait(running)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "Prefect failed" in err
    assert "Traceback" not in err
    assert quoin.began() == ["pose", "partition", "priors", "train/b1", "train/b0", "fuse", "report"]


def test_a_run_that_is_done_in_part_says_so_and_does_nothing_twice(server, quoin, reconstruct):
    _, url = server
    done = reconstruct(PREFECT_API_URL=url, FAKE_FAIL="train/b0")
    assert done.returncode == 3, done.stderr
    assert "1 of 2 blocks could not be trained" in done.stderr
    assert "Prefect failed" not in done.stderr
    assert quoin.began().count("train/b0") == 1
    (flow_run,) = ask(url, "flow_runs")
    assert flow_run["state"]["type"] == "FAILED"
    assert "1 of 2 blocks could not be trained" in flow_run["state"]["message"]


def test_the_server_sends_nothing_out_and_calls_lost_runs_crashed(server):
    _, url = server
    with urllib.request.urlopen(request(f"{url}/admin/settings")) as reply:
        settings = json.load(reply)
    assert settings["server"]["analytics_enabled"] is False
    deadline = time.monotonic() + 60
    while len(automations := ask(url, "automations")) < 2:  # installed as soon as the server answers
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for automation in automations:
        assert automation["enabled"]
        assert automation["actions"][0]["state"] == "CRASHED"


def test_a_run_cancelled_in_the_ui_stops_and_can_be_resumed(server, quoin):
    """Without a worker, which would stop it: the run looks for itself."""
    _, url = server
    process = quoin.start("reconstruct", "photos", "--out", "run", PREFECT_API_URL=url, FAKE_WAIT="train/b0")
    quoin.wait(process)
    (flow_run,) = ask(url, "flow_runs")
    set_state(url, flow_run["id"], "CANCELLING")
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode == 143
    assert f"quoin resume {quoin.run}" in err
    (flow_run,) = ask(url, "flow_runs")
    assert flow_run["state"]["type"] == "CANCELLED"
    quoin.began()
    assert quoin("resume", "run").returncode == 0
    assert quoin.began() == ["train/b0", "fuse", "report"], "the other block is kept"


def test_stopping_a_run_under_prefect_leaves_it_resumable(server, quoin):
    _, url = server
    for stop, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = quoin.start("reconstruct", "photos", "--out", "run", PREFECT_API_URL=url, FAKE_WAIT="pose")
        quoin.wait(process)
        (quoin.run / "waiting").unlink()
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert f"quoin resume {quoin.run}" in err
        assert "Traceback" not in err


ATTACK = """<script>
const call = (method, path, body) => fetch(API + path, {method, body: JSON.stringify(body),
  headers: {"Content-Type": "application/json"}}).then(reply => reply.status, () => "refused");
const blind = (path, body) => fetch(API + path, {method: "POST", mode: "no-cors", body: JSON.stringify(body),
  headers: {"Content-Type": "text/plain"}}).then(() => "sent", () => "refused");
(async () => {
  const pool = {name: "evil", type: "process"}, flow = {name: "evil"};
  document.title = JSON.stringify([await call("POST", "/work_pools/", pool), await call("POST", "/flows/", flow),
    await blind("/work_pools/", pool), await blind("/flows/", flow)]);
})();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_web_page_cannot_command_the_server(server, tmp_path):
    _, url = server
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text(ATTACK.replace("API", json.dumps(url)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{site.server_port}/"
        command = [str(CHROMIUM), *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        site.shutdown()
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title, dom
    assert json.loads(title[1])[:2] == ["refused", "refused"]
    assert ask(url, "work_pools") == []
    assert ask(url, "flows") == []
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/admin/settings")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request(f"{url}/admin/settings", Host="evil.example"))
