"""What processes of one machine share: working folders of runs at URLs, and folders that killed ones leave behind."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quoin.pipeline.storage import cache
from quoin.pipeline.storage.backend import ObjectStorage
from quoin.pipeline.storage.cache import scratch_folder
from quoin.pipeline.storage.object_store import Bucket


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


NOW = datetime.now(UTC)


class SlowBucket(Bucket):
    """Three photos, each of which takes a while to come."""

    def __init__(self, url: str) -> None:
        self.url = url

    def list_objects(self, prefix: str = "") -> list[tuple[str, int, datetime]]:
        return [(f"p{i}.jpg", 5, NOW) for i in range(3)]

    def download(self, name: str, path: Path) -> str:
        with open(path, "wb") as file:
            file.write(b"ab")
            file.flush()
            time.sleep(0.3)
            file.write(b"cde")
        return "x"


def test_processes_that_mirror_the_same_photos_at_once_all_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "Bucket", SlowBucket)

    def mirror(wait_s: float) -> list[tuple[str, bytes]]:
        time.sleep(wait_s)
        return sorted((path.name, path.read_bytes()) for path in cache.mirror_photos("s3://bucket/photos").iterdir())

    with ThreadPoolExecutor(3) as pool:
        for photos in pool.map(mirror, (0.0, 0.1, 0.2)):
            assert photos == [(f"p{i}.jpg", b"abcde") for i in range(3)]


def test_what_another_process_is_downloading_is_left_and_what_was_abandoned_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "Bucket", SlowBucket)
    folder = cache.mirror_photos("s3://bucket/photos")
    being_written, abandoned, gone = folder / ".a.jpg.1.partial", folder / ".b.jpg.2.partial", folder / "c.jpg"
    for path in (being_written, abandoned, gone):
        path.write_bytes(b"x")
    os.utime(abandoned, (1.0, 1.0))
    cache.mirror_photos("s3://bucket/photos")
    assert [path.exists() for path in (being_written, abandoned, gone)] == [True, False, False]
