"""The run folder: commit, skip, redo, refuse."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.backend import LocalStorage
from quoin.pipeline.storage.disk import write_atomic
from quoin.pipeline.storage.lock import lock_run
from quoin.pipeline.storage.run import RUN_FILE, Run, peak_memory_bytes, reset_peak_memory
from tests.fixtures.stage_of import stage_of


class Size(StageConfig):
    size: int = 1


class Done(StageResult):
    total: int


def make_chain(calls: list[str], version: int = 1):
    """Two stages, b standing on a, that write down when they really work."""

    @stage_of("a", needs=(), version=version, result=Done)
    def a(run: Run, config: Size, report: Reporter) -> Done:
        calls.append("a")
        return Done(total=config.size)

    @stage_of("b", needs=("a",), version=1, result=Done)
    def b(run: Run, config: Size, report: Reporter) -> Done:
        calls.append("b")
        return Done(total=config.size + run.require("a").result["total"])

    return a, b


def go(run: Run, calls: list[str], a_size: int = 1, b_size: int = 1, version: int = 1) -> int:
    a, b = make_chain(calls, version)
    a(run, Size(size=a_size), Reporter())
    return b(run, Size(size=b_size), Reporter()).total


# -- commits ---------------------------------------------------------------------------------------------------------


def test_a_committed_stage_is_skipped_and_gives_the_same_result(run: Run):
    calls: list[str] = []
    assert go(run, calls) == 2
    assert go(Run.open(run.path), calls) == 2
    assert calls == ["a", "b"]


def test_a_change_downstream_leaves_upstream_alone(run: Run):
    calls: list[str] = []
    go(run, calls)
    assert go(run, calls, b_size=5) == 6
    assert calls == ["a", "b", "b"]


def test_a_change_upstream_redoes_everything_below(run: Run):
    calls: list[str] = []
    go(run, calls)
    assert go(run, calls, a_size=2) == 3
    assert calls == ["a", "b", "a", "b"]


def test_a_newer_stage_version_redoes(run: Run):
    calls: list[str] = []
    go(run, calls)
    go(run, calls, version=2)
    assert calls == ["a", "b", "a", "b"]


def test_another_seed_redoes(run: Run):
    calls: list[str] = []
    go(run, calls)
    go(Run.create(run.path, photos=run.photos, settings={}, seed=8), calls)
    assert calls == ["a", "b", "a", "b"]


def test_invalidate_takes_the_blocks_along_and_nothing_else(run: Run):
    for name in ("train", "train/b0", "train/b1", "trainer", "pose"):
        run.commit(name, "k", Done(total=1), 0.0)
    run.invalidate("train")
    assert sorted(Run.open(run.path).record.manifests) == ["pose", "trainer"]


def test_a_stage_without_what_it_needs_says_so(run: Run):
    _, b = make_chain([])
    with pytest.raises(QuoinError, match="Stage 'a' has not been completed"):
        b(run, Size(), Reporter())


def test_a_stage_that_fails_commits_nothing_and_forgets_what_it_replaced(run: Run):
    @stage_of("a", needs=(), version=2, result=Done)
    def broken(run: Run, config: Size, report: Reporter) -> Done:
        raise ValueError("broken")

    go(run, [])
    with pytest.raises(ValueError, match="broken"):
        broken(run, Size(), Reporter())
    kept = Run.open(run.path).record.manifests
    assert "a" not in kept


# -- refusals --------------------------------------------------------------------------------------------------------


def test_other_photos_into_the_same_folder_are_refused_and_nothing_is_lost(run: Run, tmp_path: Path):
    go(run, [])
    before = (run.path / RUN_FILE).read_bytes()
    with pytest.raises(QuoinError, match="another run"):
        Run.create(run.path, photos=tmp_path / "others", settings={}, seed=0)
    assert (run.path / RUN_FILE).read_bytes() == before


def test_a_run_that_committed_nothing_takes_other_photos(run: Run, tmp_path: Path):
    assert Run.create(run.path, photos=tmp_path / "others", settings={}, seed=0).photos == tmp_path / "others"


def test_a_folder_with_something_else_in_it_is_refused_and_nothing_is_lost(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(QuoinError, match="holds no quoin run"):
        Run.create(tmp_path, photos=tmp_path, settings={}, seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_an_output_path_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(QuoinError):
        Run.create(tmp_path / "file", photos=tmp_path, settings={}, seed=0)
    with pytest.raises(QuoinError):
        Run.create(tmp_path / "file" / "below", photos=tmp_path, settings={}, seed=0)


def test_a_run_of_another_format_names_both_versions(run: Run):
    raw = json.loads((run.path / RUN_FILE).read_text())
    (run.path / RUN_FILE).write_text(json.dumps({**raw, "format": 99, "quoin": "7.8.9"}))
    with pytest.raises(QuoinError, match=r"7\.8\.9.*99"):
        Run.open(run.path)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '"words"', '{"format": 1}', "\x00\x01", "{}"])
def test_a_damaged_run_file_is_one_sentence(run: Run, content: str):
    (run.path / RUN_FILE).write_text(content)
    with pytest.raises(QuoinError) as caught:
        Run.open(run.path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(QuoinError, match="no quoin run here"):
        Run.open(tmp_path)


# -- the disk --------------------------------------------------------------------------------------------------------


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(path.read_bytes()), replace(a, b)))
    write_atomic(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EROFS, "write")]
)
def test_a_full_disk_keeps_the_old_file_and_is_one_sentence(tmp_path: Path, monkeypatch, step, code, words):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(QuoinError, match=words):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_in_a_stage_is_one_sentence_and_no_commit(run: Run):
    @stage_of("a", needs=(), version=1, result=Done)
    def fills_the_disk(run: Run, config: Size, report: Reporter) -> Done:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
        return Done(total=0)

    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(QuoinError, match="disk is full"):
        fills_the_disk(run, Size(), Reporter())
    assert Run.open(run.path).manifest("a") is None


def test_a_full_disk_at_the_commit_leaves_the_run_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch):
    go(run, [])
    before = (run.path / RUN_FILE).read_bytes()

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(QuoinError, match="disk is full"):
            run.commit("c", "k", Done(total=1), 0.0)
    assert (run.path / RUN_FILE).read_bytes() == before
    assert run.manifest("c") is None, "in memory too: nobody may trust what was not committed"


def test_a_folder_that_cannot_be_made_is_one_sentence():
    with pytest.raises(QuoinError, match="Cannot write"):
        Run.create(Path("/proc/quoin/run"), photos=Path(), settings={}, seed=0)


LARGE = 400 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget")
def test_what_is_forgotten_is_not_told() -> None:
    reset_peak_memory()
    before = peak_memory_bytes()
    held = np.ones(LARGE // 8)
    assert peak_memory_bytes() > before + 0.9 * LARGE
    assert held.sum() > 0
    del held
    reset_peak_memory()
    assert peak_memory_bytes() < before + 0.5 * LARGE


def test_of_two_who_work_on_a_run_the_second_is_refused_and_no_commit_is_lost(run: Run):
    other = Run.open(run.path)
    run.commit("a", "k1", Done(total=1), 1.0)
    with pytest.raises(QuoinError, match="Another quoin process has changed this run"):
        other.commit("b", "k2", Done(total=2), 1.0)
    assert list(Run.open(run.path).record.manifests) == ["a"]
    run.commit("b", "k2", Done(total=2), 1.0)
    assert list(Run.open(run.path).record.manifests) == ["a", "b"]


def test_of_two_who_make_a_run_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def create() -> Run:
        return Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)

    prepare = LocalStorage.prepare

    def prepare_late(self: LocalStorage, run_id: str, *, is_new: bool = False) -> None:
        monkeypatch.undo()
        prepare(self, run_id, is_new=is_new)
        create()

    monkeypatch.setattr(LocalStorage, "prepare", prepare_late)
    with pytest.raises(QuoinError, match="Another quoin process has changed this run"):
        create()


def test_the_lock_outlives_a_tidy_up_of_the_logs(run: Run):
    (run.path / "logs").mkdir()
    with lock_run(run.path):
        for path in run.path.iterdir():
            if path.name[0] == ".":  # which rm -rf * leaves
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(QuoinError, match=f"Another quoin works in this run folder .*process {os.getpid()}"):
            lock_run(run.path).__enter__()
    with lock_run(run.path):
        pass
