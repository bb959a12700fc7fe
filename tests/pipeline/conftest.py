"""A run in a temporary folder, and stages small enough to count how often they work."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def run(tmp_path: Path):
    """A fresh run of an (empty) photo folder."""
    from quoin.pipeline.storage.run import Run

    photos = tmp_path / "photos"
    photos.mkdir()
    return Run.create(tmp_path / "run", photos=photos, settings={"a": {"size": 1}}, seed=7)
