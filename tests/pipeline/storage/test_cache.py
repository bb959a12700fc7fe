"""What processes of one machine share: working folders of runs at URLs, and folders that killed ones leave behind."""

from __future__ import annotations

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quoin.pipeline.storage.backend import ObjectStorage
from quoin.pipeline.storage.cache import scratch_folder


def test_workers_that_come_at_the_same_time_do_not_take_each_other_s_folder_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "no")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "matter")
    homes = [ObjectStorage("s3://bucket/run") for _ in range(16)]
    for run_id in ("first", "second"):

        def work(number: int, run_id: str = run_id) -> None:
            homes[number].prepare(run_id)
            (homes[number].folder / f"{run_id} {number}").write_text("")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        left = {path.name for path in homes[0].folder.iterdir()}
        assert left == {"run-id", *(f"{run_id} {n}" for n in range(16))}, "all of this run, nothing of another"


def test_folders_of_killed_processes_go(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    here, parent = f"quoin-{host}-{ended.pid}-a", f"quoin-{host}-{os.getppid()}-b"
    for name in (here, parent, f"quoin-elsewhere-{ended.pid}-c", "quoin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "features.db").write_text("")
    with scratch_folder(tmp_path) as folder:
        (folder / "a").write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {parent, f"quoin-elsewhere-{ended.pid}-c", "quoin"}
