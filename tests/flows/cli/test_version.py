"""``quoin --version``: the version and the commit, in a checkout; of wheels see tests/test_packaging.py."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from quoin import __version__
from quoin.flows.cli import version
from quoin.flows.cli.app import run_command

ROOT = Path(__file__).parents[3]


def test_a_checkout_tells_its_commit(capsys):
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert run_command(["--version"]) == 0
    name, number, commit = capsys.readouterr().out.split()
    assert (name, number) == ("quoin", __version__)
    assert head.startswith(commit.strip("()"))


def test_without_git_it_is_just_the_version(tmp_path, monkeypatch):
    assert version.checkout_commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    assert version.checkout_commit(tmp_path) == "", "a broken checkout"
    monkeypatch.setenv("PATH", "")
    assert version.checkout_commit(ROOT) == ""
    monkeypatch.setattr(version, "checkout_commit", lambda root: "")
    assert version.version_text() == f"quoin {__version__}"
