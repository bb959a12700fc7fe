"""``quoin submit`` with a real server and a real process worker: deployed, watched, cancelled, resumed, lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from quoin.flows.prefect import submit as submission
from quoin.flows.prefect.submit import command_line, flow_parameters
from quoin.pipeline.core.errors import QuoinError
from tests.flows.conftest import LIGHT_STAGES, SOURCE, ask, post, request, serving, set_state, standing_still, stop

slow = [pytest.mark.slow, pytest.mark.timeout(900)]


def parameters(preset="default", overrides=(), clips=(), **where):
    return flow_parameters("photos", "run", preset, list(overrides), 3, list(clips), **where)


def test_paths_are_absolute_for_the_worker_and_urls_stay_as_they_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = flow_parameters("s3://bucket/photos", "run", "default", [], 0, ["clip.mp4"])
    assert asked["photos"] == "s3://bucket/photos"
    assert asked["out"] == str(tmp_path / "run")
    assert asked["clips"] == [str(tmp_path / "clip.mp4")]


def test_what_the_deployment_shall_say_is_left_to_it():
    assert not {"device", "executor", "address"} & parameters(device=None, executor=None, address=None).keys()
    assert parameters(device="cpu", executor=None)["device"] == "cpu"


def test_a_preset_in_a_file_becomes_overrides_that_mean_the_same(tmp_path):
    from quoin.flows.settings import load_settings

    preset = tmp_path / "mine.yaml"
    preset.write_text(
        yaml.safe_dump({"train": {"steps": 30, "losses": {"eikonal": 0.2}}, "pose": {"max_edge_px": 900}})
    )
    asked = parameters(str(preset), ["train.steps=40"])
    assert asked["preset"] == "default"
    assert load_settings(asked["preset"], asked["overrides"]) == load_settings(str(preset), ["train.steps=40"])


def test_mistyped_settings_are_refused_before_anything_is_sent():
    with pytest.raises(QuoinError, match=r"train\.stepss"):
        parameters(overrides=["train.stepss=1"])


def test_a_ray_job_is_the_command_that_one_would_type():
    asked = parameters(overrides=["train.steps=1"], device="cuda", clips=["a b.mp4"], gpu_share=0.5)
    words = command_line(asked)
    assert words[:3] == ["quoin", "reconstruct", str(Path("photos").absolute())]
    assert words[3] == str(Path("a b.mp4").absolute())
    assert words[words.index("--set") + 1] == "train.steps=1"
    assert words[words.index("--device") + 1] == "cuda"
    assert words[words.index("--gpu-share") + 1] == "0.5"
    assert "--executor" not in words


def test_a_ray_job_says_how_to_see_and_stop_it_and_is_not_watched(monkeypatch, capsys):
    from quoin.cluster import jobs

    monkeypatch.setattr(jobs, "submit_job", lambda to, words: "job-1")
    with pytest.raises(QuoinError, match="--watch does not work"):
        submission.submit_run("ray://head", parameters(), watch=True)
    assert submission.submit_run("ray://head", parameters(executor=None), watch=False) == 0
    told = capsys.readouterr().out
    assert "ray job logs --address http://head:8265 --follow job-1" in told
    assert "ray job stop --address http://head:8265 job-1" in told
    assert "--executor ray --address auto uses all machines" in told
    submission.submit_run("ray://head", parameters(executor="ray", address="auto"), watch=False)
    assert "uses all machines" not in capsys.readouterr().out


def test_last_lines_that_come_after_the_end_are_told(monkeypatch, capsys):
    from types import SimpleNamespace
    from uuid import uuid4

    from prefect.states import Completed, Running

    monkeypatch.setattr(submission, "WATCH_POLL_SECONDS", 0.0)
    task = SimpleNamespace(name="prefect.task_runs", message="Finished in state Completed()")
    lines = {text: SimpleNamespace(name="prefect.flow_runs", message=text) for text in ("first", "last")}
    looks = iter([[], [], [], [lines["first"], task], [], [lines["last"]], [], [], []])
    states = iter([Running()] * 4 + [Completed()] * 5)
    client = SimpleNamespace(
        read_flow_run=lambda _: SimpleNamespace(state=next(states)),
        read_logs=lambda *_, offset: next(looks),
    )
    assert submission._watch(client, uuid4()) == 0
    assert capsys.readouterr().out.split() == ["Running", "first", "Completed", "last"]


def test_without_a_server_it_says_what_to_start(quoin):
    done = submit(quoin, "local", "http://127.0.0.1:1/api", "--out", "run")
    assert done.returncode == 2
    assert "No Prefect server responds" in done.stderr
    assert "quoin ui" in done.stderr


def submit(quoin, pool, url, *more):
    env = os.environ | {"PYTHONPATH": f"{LIGHT_STAGES}{os.pathsep}{SOURCE}", "PREFECT_API_URL": url}
    command = [sys.executable, "-m", "quoin.flows.cli.app", "submit", "photos", "--to", pool, "--device", "cpu", *more]
    return subprocess.run(command, cwd=quoin.folder, env=env, text=True, capture_output=True, timeout=250)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Prefect's API."""
    with serving(tmp_path_factory.mktemp("server")) as (_, address):
        yield address


@pytest.fixture
def work(url, tmp_path):
    """``work(pool, **environment)``: a process pool for one run at a time, and a worker for it."""
    workers = []

    def start(pool, **environment):
        if pool not in {known["name"] for known in ask(url, "work_pools")}:
            post(f"{url}/work_pools/", {"name": pool, "type": "process", "concurrency_limit": 1})
        env = os.environ | {
            "PYTHONPATH": f"{LIGHT_STAGES}{os.pathsep}{SOURCE}",
            "PREFECT_API_URL": url,
            "PREFECT_HOME": str(tmp_path / "worker"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        with open(tmp_path / f"{pool}.log", "w") as log:
            worker = subprocess.Popen(command, env=env | environment, stdout=log, stderr=log, start_new_session=True)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        stop(worker)


def flow_run(url, out):
    """The newest flow run into ``out``."""
    runs = [run for run in ask(url, "flow_runs") if run["parameters"]["out"] == str(out)]
    return max(runs, key=lambda run: run["created"])


def wait_for_state(url, out, state, seconds):
    began = time.monotonic()
    while flow_run(url, out)["state"]["type"] != state:
        assert time.monotonic() - began < seconds, flow_run(url, out)["state"]
        time.sleep(0.3)
    return time.monotonic() - began


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestWithAServer:
    pytestmark = slow

    def test_a_pool_that_is_not_there_is_refused_with_those_that_are(self, url, quoin):
        post(f"{url}/work_pools/", {"name": "big-gpus", "type": "process"})
        done = submit(quoin, "biggpus", url, "--out", "run")
        assert done.returncode == 2
        assert "Unknown work pool ('biggpus')" in done.stderr
        assert "big-gpus" in done.stderr
        assert not ask(url, "flow_runs")

    def test_a_run_is_deployed_done_and_watched(self, url, quoin, work):
        work("quick")
        done = submit(quoin, "quick", url, "--out", "run", "--set", "train.steps=4", "--seed", "7", "--watch")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "/runs/flow-run/" in done.stdout
        assert "train/b0: hello" in done.stdout, "what blocks say is in the flow's log"
        assert quoin.manifests()["train"]["result"]["blocks"][0]["device"] == "cpu"
        run = flow_run(url, quoin.run)
        assert run["parameters"]["seed"] == 7
        assert run["parameters"]["overrides"] == ["train.steps=4"]
        (deployment,) = [d for d in ask(url, "deployments") if d["name"] == "quick"]
        schema = deployment["parameter_openapi_schema"]["properties"]
        assert all(len(schema[name]["description"]) > 15 for name in schema), "the form explains every field"
        assert schema["device"]["enum"] == ["auto", "cpu", "cuda"]
        assert schema["preset"]["enum"] == ["default", "draft"]
        assert schema["seed"]["minimum"] == 0
        refused = submit(quoin, "quick", url, "--out", "run", "--seed=-1")
        assert refused.returncode == 2
        assert "seed" in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_what_a_user_can_mend_fails_the_flow_run_with_a_sentence(self, url, quoin, work):
        work("failing", FAKE_FAIL="pose")
        done = submit(quoin, "failing", url, "--out", "run", "--watch")
        assert done.returncode == 2
        assert "Failed: Nothing fits ('pose'). Take more photos." in done.stdout
        assert "Traceback" not in done.stdout

    def test_cancelling_ends_actors_and_the_next_run_of_the_pool_begins_and_lost_ones_are_crashed(
        self, url, quoin, work
    ):
        be_impatient(url)
        worker = work("slow", FAKE_WAIT="train/b0")
        assert submit(quoin, "slow", url, "--out", "run", "--executor", "ray").returncode == 0
        actor = standing_still(quoin.run, worker)
        assert submit(quoin, "slow", url, "--out", "second").returncode == 0
        assert flow_run(url, quoin.folder / "second")["state"]["type"] == "SCHEDULED", "one run at a time"

        began = time.monotonic()
        set_state(url, flow_run(url, quoin.run)["id"], "CANCELLING")
        while alive(actor):
            assert time.monotonic() - began < 15
            time.sleep(0.1)
        wait_for_state(url, quoin.run, "CANCELLED", 60)
        assert set(quoin.manifests()) == {"ingest", "pose", "partition", "priors", "train/b1"}
        quoin.began()
        resumed = quoin("resume", "run")
        assert resumed.returncode == 0, resumed.stderr
        assert quoin.began() == ["train/b0", "fuse", "report"]

        lost = standing_still(quoin.folder / "second", worker)
        os.kill(worker.pid, signal.SIGKILL)  # as if the machine were gone
        os.kill(lost, signal.SIGKILL)
        wait_for_state(url, quoin.folder / "second", "CRASHED", 120)

    @pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
    def test_a_run_that_its_worker_took_and_left_is_crashed_and_its_place_free(self, url, quoin, work, state):
        pool = f"left-{state.lower()}"
        be_impatient(url)
        post(f"{url}/work_pools/", {"name": pool, "type": "process", "concurrency_limit": 1})
        assert submit(quoin, pool, url, "--out", "run").returncode == 0
        set_state(url, flow_run(url, quoin.run)["id"], state)  # by a worker or a process that then is gone
        assert submit(quoin, pool, url, "--out", "second").returncode == 0
        wait_for_state(url, quoin.run, "CRASHED", 120)
        work(pool)
        wait_for_state(url, quoin.folder / "second", "COMPLETED", 120)

    def test_a_run_whose_worker_was_killed_goes_on_and_can_be_cancelled(self, url, quoin, work):
        worker = work("orphans", FAKE_WAIT="train/b0", FAKE_SECONDS="10")
        assert submit(quoin, "orphans", url, "--out", "run").returncode == 0
        standing_still(quoin.run, worker)
        os.kill(worker.pid, signal.SIGKILL)
        wait_for_state(url, quoin.run, "COMPLETED", 60)

        worker = work("orphans", FAKE_WAIT="train/b0")
        assert submit(quoin, "orphans", url, "--out", "second").returncode == 0
        orphan = standing_still(quoin.folder / "second", worker)
        os.kill(worker.pid, signal.SIGKILL)
        set_state(url, flow_run(url, quoin.folder / "second")["id"], "CANCELLING")
        wait_for_state(url, quoin.folder / "second", "CANCELLED", 90)
        deadline = time.monotonic() + 30
        while alive(orphan):
            assert time.monotonic() < deadline
            time.sleep(0.3)


def be_impatient(url):
    """Have lost runs called crashed after 40 s: as shipped, the test would take three minutes."""
    deadline = time.monotonic() + 120
    while len(automations := ask(url, "automations")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for automation in automations:
        automation["trigger"]["within"] = 40
        wanted = {key: automation[key] for key in ("name", "description", "enabled", "trigger", "actions")}
        address = f"{url}/automations/{automation['id']}"
        change = request(address, json.dumps(wanted).encode(), method="PUT")
        while True:
            try:
                urllib.request.urlopen(change, timeout=60).close()
                break
            except urllib.error.HTTPError:  # 503: another writes to the database
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
