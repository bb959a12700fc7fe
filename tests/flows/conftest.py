"""The command line over light stages (tests/flows/light_stages), each call in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quoin.flows.prefect.server import AUTH_VARIABLE, auth_header, is_responding

LIGHT_STAGES = Path(__file__).parent / "light_stages"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


class Quoin:
    """Runs ``quoin`` in ``folder``, where photos/ lies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A quoin that is running."""
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(LIGHT_STAGES), str(SOURCE)])} | environment
        process = subprocess.Popen(
            [sys.executable, "-m", "quoin.flows.cli.app", *arguments, "--device", "cpu"],  # auto would import torch
            cwd=self.folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A quoin that has ended."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=250)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start_and_wait_in(self, stage: str, *arguments: str) -> subprocess.Popen[str]:
        """A quoin that stands still in ``stage``."""
        (self.run / "waiting").unlink(missing_ok=True)
        process = self.start(*arguments, FAKE_WAIT=stage)
        self.wait(process)
        return process

    def wait(self, process: subprocess.Popen[str]) -> int:
        """Until the run stands still; returns the id of the process that does."""
        return standing_still(self.run, process)

    def began(self) -> list[str]:
        """Stages that began since the last call, in order."""
        path = self.run / "began.txt"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def manifests(self) -> dict:
        return json.loads((self.run / "run.json").read_text())["manifests"]


def standing_still(run: Path, process: subprocess.Popen[str]) -> int:
    """Wait until a stage of ``run`` stands still (FAKE_WAIT); returns the id of the process it is in."""
    waiting = run / "waiting"
    deadline = time.monotonic() + 300
    while not (waiting.exists() and waiting.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(waiting.read_text())


@pytest.fixture
def quoin(tmp_path: Path) -> Iterator[Quoin]:
    (tmp_path / "photos").mkdir()
    made = Quoin(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def reconstruct(quoin: Quoin) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``quoin reconstruct photos --out run`` with more arguments."""
    return lambda *more, **env: quoin("reconstruct", "photos", "--out", "run", *more, **env)


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """(process, API address) of ``quoin ui`` on a free port; what it prints goes to ``folder``/ui.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"QUOIN_HOME": str(folder / "home"), "PYTHONPATH": str(SOURCE)} | environment
    command = [sys.executable, "-m", "quoin.flows.cli.app", "ui", "--port", str(port)]
    with open(folder / "ui.log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    url, auth_file = f"http://127.0.0.1:{port}/api", folder / "home" / "prefect" / "auth-string"
    try:
        deadline = time.monotonic() + 300
        while not is_responding(url):
            assert process.poll() is None, (folder / "ui.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        os.environ[AUTH_VARIABLE] = auth_file.read_text()
        yield process, url
    finally:
        os.environ.pop(AUTH_VARIABLE, None)
        stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process as Ctrl-C does."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()


def ask(url: str, what: str, **wanted: Any) -> Any:
    """Records of a Prefect server: ``what`` is flow_runs, task_runs, artifacts, automations ..."""
    return post(f"{url}/{what}/filter", wanted)


def set_state(url: str, flow_run_id: str, state: str) -> None:
    """As a button in the UI does."""
    body = json.dumps({"state": {"type": state}}).encode()
    urllib.request.urlopen(request(f"{url}/flow_runs/{flow_run_id}/set_state", body), timeout=60).close()


def post(url: str, body: dict[str, Any]) -> Any:
    with urllib.request.urlopen(request(url, json.dumps(body).encode()), timeout=60) as reply:
        return json.load(reply)


def request(url: str, body: bytes | None = None, method: str | None = None, **headers: str) -> urllib.request.Request:
    """A request to the server of ``serving``, by one who has its key."""
    headers = {"Content-Type": "application/json", **auth_header(os.environ[AUTH_VARIABLE]), **headers}
    return urllib.request.Request(url, body, headers, method=method)
