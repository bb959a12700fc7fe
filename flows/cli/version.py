"""The version of quoin with the commit it was made from."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path

import quoin


def version_text() -> str:
    """``quoin 0.1.0 (a1b2c3d)``; without the commit where none is known."""
    commit = baked_commit() or checkout_commit(Path(quoin.__file__).resolve().parents[2])
    return f"quoin {quoin.__version__}{f' ({commit})' if commit else ''}"


def baked_commit() -> str:
    """The commit that setup.py wrote into the wheel; "" in a checkout, and in a wheel built without git."""
    file = resources.files("quoin") / "commit.txt"
    return file.read_text(encoding="ascii").strip() if file.is_file() else ""


def checkout_commit(root: Path) -> str:
    """The commit that is checked out at ``root``; "" where that is no checkout of its own, or git is not there."""
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short=7", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
