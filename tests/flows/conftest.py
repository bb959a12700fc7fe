"""The command line over light stages (tests/flows/fakes), each call in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FAKES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[2]


class Quoin:
    """Runs ``quoin`` in ``folder``, where photos/ lies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A quoin that is running."""
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(FAKES), str(ROOT)])} | environment
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments, "--device", "cpu"],  # auto would import torch
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
        deadline = time.monotonic() + 60
        while not (self.run / "waiting").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    def began(self) -> list[str]:
        """Stages that began since the last call, in order."""
        path = self.run / "began.txt"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def manifests(self) -> dict:
        return json.loads((self.run / "run.json").read_text())["manifests"]


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
