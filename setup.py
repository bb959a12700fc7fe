"""Writes the commit into wheels and source distributions, as quoin/commit.txt; all else is in pyproject.toml."""

from __future__ import annotations

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent


def write_commit(package: Path) -> None:
    """Write ``package``/commit.txt where ROOT is a git checkout; a source distribution has brought its own."""
    if not (ROOT / ".git").exists():
        return
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=7", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return
    package.mkdir(parents=True, exist_ok=True)
    (package / "commit.txt").write_text(commit, encoding="ascii")


class BuildWithCommit(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            write_commit(Path(self.build_lib) / "quoin")


class SourceWithCommit(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir) / "src" / "quoin")


setup(cmdclass={"build_py": BuildWithCommit, "sdist": SourceWithCommit})
