"""Hashes of files: read again where size or time of change differ, and only there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from quoin.stages.ingest import file_digests as module
from quoin.stages.ingest.file_digests import DIGESTS_PATH, file_digests


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.ppm"
    path.write_bytes(b"one")
    os.utime(path, (1000, 1000))
    return path


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files that were read."""
    paths: list[Path] = []
    hash_file = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda path: paths.append(path) or hash_file(path))
    return paths


def test_a_file_is_read_once_until_it_is_touched(file, run_folder, read):
    want = {file: hashlib.sha256(b"one").hexdigest()}
    assert file_digests([file, file], run_folder) == file_digests([file], run_folder) == want
    assert read == [file]
    os.utime(file, (2000, 2000))  # copied, or touched: looked at again, and the same
    assert file_digests([file], run_folder) == want
    assert read == [file, file]
    file.write_bytes(b"two")
    os.utime(file, (3000, 3000))
    assert file_digests([file], run_folder) == {file: hashlib.sha256(b"two").hexdigest()}


def test_a_file_changed_just_now_is_always_read(file, run_folder, read):
    """Within a tick of the clock it may be changed again with the same size."""
    file.write_bytes(b"two")
    file_digests([file], run_folder)
    file_digests([file], run_folder)
    assert read == [file, file]


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a": 1}', '{"a": [1]}'])
def test_a_damaged_note_is_made_anew(file, run_folder, damage):
    want = file_digests([file], run_folder)
    (run_folder / DIGESTS_PATH).write_text(damage)
    assert file_digests([file], run_folder) == want
    assert str(file) in (run_folder / DIGESTS_PATH).read_text()


def test_without_a_run_nothing_is_written_and_what_is_gone_is_empty(file, tmp_path):
    gone = tmp_path / "gone"
    assert file_digests([gone, file], tmp_path / "no run")[gone] == ""
    assert not (tmp_path / "no run").exists()
