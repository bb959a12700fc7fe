"""Links inside a run folder are not followed: what they point at is neither written nor read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quoin.flows.session import open_reporter, resume_run, start_run
from quoin.flows.settings import load_settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.backend import RUN_FILE
from quoin.pipeline.storage.cache import file_lock
from quoin.pipeline.storage.lock import lock_run
from quoin.pipeline.storage.run import Run


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "file").write_text("precious")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)
    (run.path / "logs").mkdir()
    return run.path


def snapshot(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def work_in(folder: Path) -> None:
    with resume_run(folder) as run, open_reporter(run) as report:
        report.log("run", "x")
        run.save()


@pytest.mark.parametrize(
    "name", [".lock", ".run.json.lock", "logs/events.jsonl", "tables", "scene.zarr", "work", "frames/a/000001.jpg"]
)
def test_a_run_with_a_link_in_it_is_refused(folder: Path, precious: Path, tmp_path: Path, name: str) -> None:
    link, before = folder / name, snapshot(precious)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(precious if "." not in name or name == "scene.zarr" else precious / "file")
    with pytest.raises(QuoinError, match="There is a link in this run folder"):
        work_in(folder)
    settings = load_settings("default", [])
    with pytest.raises(QuoinError, match="There is a link"), start_run(tmp_path, folder, settings, 0):
        pass
    assert snapshot(precious) == before


def test_locks_do_not_follow_links_that_appear_later(folder: Path, precious: Path) -> None:
    (folder / ".lock").symlink_to(precious / "file")
    with pytest.raises(QuoinError, match="There is a link"), lock_run(folder):
        pass
    (folder / f".{RUN_FILE}.lock").unlink(missing_ok=True)
    (folder / f".{RUN_FILE}.lock").symlink_to(precious / "file")
    with pytest.raises(QuoinError, match="There is a link"), file_lock(folder / f".{RUN_FILE}"):
        pass
    assert (precious / "file").read_text() == "precious"


def test_the_run_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(folder)
    with resume_run(tmp_path / "shortcut") as run:
        assert run.record.seed == 0


def test_links_to_photos_that_pose_gives_colmap_are_its_own(folder: Path, precious: Path) -> None:
    images = folder / "work/pose/images"
    images.mkdir(parents=True)
    (images / "000000.jpg").symlink_to(precious / "file")
    Run.open(folder)
    (images / "sub").mkdir()
    os.symlink(precious, images / "sub" / "x")
    with pytest.raises(QuoinError, match="There is a link"):
        Run.open(folder)
