"""What a commit says is there is on the disk: after a power cut, and whichever write fails."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from tests.fixtures.stage_of import stage_of


class Empty(StageConfig):
    pass


class Done(StageResult):
    n: int = 0


def write_outputs(run: Run) -> None:
    """Arrays, a table and a file, as stages write them."""
    rng = np.random.default_rng(0)
    for i in range(2):
        arrays.write_array(run.scene, f"photos/{i:06d}/rgb0", rng.integers(1, 255, (60, 80, 3), dtype=np.uint8))
    arrays.write_array(
        run.scene, "blocks/b0/sdf", rng.normal(size=(3, 9, 9, 9)).astype(np.float16), chunks=(1, 9, 9, 9)
    )
    pq.write_table(pa.table({"a": list(range(5000))}), run.table("photos"))
    with run.storage.open_for_upload("mesh.ply") as path:
        path.write_bytes(rng.bytes(300_000))


@stage_of("fuse", needs=(), version=1, result=Done)
def fuse(run: Run, config: Empty, report: Reporter) -> Done:
    write_outputs(run)
    return Done()


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files in a run folder, run.json and locks aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path.name != "run.json")
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


# -- a power cut -------------------------------------------------------------------------------------------------------


def has_loop_devices() -> bool:
    """Whether a file can be mounted as a disk here."""
    return os.geteuid() == 0 and bool(shutil.which("mkfs.ext4")) and Path("/dev/loop-control").exists()


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a file here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, capture_output=True)


@pytest.mark.skipif(not has_loop_devices(), reason="needs root, loop devices and mkfs.ext4")
def test_what_is_committed_survives_a_power_cut(tmp_path):
    """A loop device under ext4 is the disk; its file, copied without a sync, is what a power cut leaves."""
    disk, cut = tmp_path / "disk.img", tmp_path / "cut.img"
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    with mounted(disk, tmp_path / "mnt") as live:
        run = Run.create(live / "run", photos=tmp_path, settings={}, seed=0)
        fuse(run, Empty(), Reporter())
        subprocess.run(["cp", "--sparse=always", disk, cut], check=True)
        expected = sizes(live / "run")
    assert len(expected) >= 10
    with mounted(cut, tmp_path / "snapshot") as left:
        assert list(Run.open(left / "run").record.manifests) == ["fuse"]
        assert sizes(left / "run") == expected


def test_files_are_brought_to_the_disk_before_the_commit_and_its_name_after(run, monkeypatch):
    calls: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr("quoin.pipeline.storage.backend.sync_filesystem", lambda folder: calls.append("all files"))
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(kind_of(fd)), fsync(fd))[1])
    fuse(run, Empty(), Reporter())
    assert calls[-3:] == ["all files", "file", "folder"]


def kind_of(descriptor: int) -> str:
    return "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"


def test_a_worker_syncs_what_it_wrote_before_it_says_so(run, monkeypatch):
    import pickle

    from quoin.pipeline.storage.run import sync_received_runs

    synced: list[Path] = []
    monkeypatch.setattr("quoin.pipeline.storage.backend.sync_filesystem", synced.append)
    pickle.loads(pickle.dumps(run))
    sync_received_runs()
    assert run.path in synced


# -- a write that fails ------------------------------------------------------------------------------------------------


class FailingCalls:
    """Counts calls of ``names`` of the module os, and lets the n-th fail as a disk does that is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], n: int) -> None:
        self.count, self.n = 0, n
        for name in names:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable) -> Callable:
        def counted(*args, **kwargs):
            self.count += 1
            if self.count == self.n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*args, **kwargs)

        return counted


def test_whichever_write_fails_the_run_is_as_before_or_as_after(tmp_path, monkeypatch):
    for n in range(1, 1000):
        run = Run.create(tmp_path / f"run{n}", photos=tmp_path, settings={}, seed=0)
        error = None
        with monkeypatch.context() as patch:
            calls = FailingCalls(patch, ("open", "fsync", "replace", "rename", "mkdir"), n)
            try:
                fuse(run, Empty(), Reporter())
            except QuoinError as caught:
                error = caught
        again = Run.open(run.path)
        if error is None:
            assert "fuse" in again.record.manifests
        else:
            assert "disk is full" in str(error)
            fuse(again, Empty(), Reporter())
        np.testing.assert_array_equal(arrays.read_array(again.scene, "blocks/b0/sdf").shape, (3, 9, 9, 9))
        assert pq.read_table(again.path / "tables" / "photos.parquet").num_rows == 5000
        if calls.count < n:
            break
    assert n > 30
