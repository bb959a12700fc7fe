"""Folders of small generated photos, and a run over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.scene.photo_table import read_photo_table
from tests.fixtures.image_files import picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def put(photos: Path) -> Callable[..., Path]:
    """``put("sub/a.jpg", seed)`` writes a photo below the folder; ``put(name, bytes)`` any file."""

    def write(name: str, content: int | bytes | np.ndarray = 0, **options) -> Path:
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pixels = picture(content, 144, 192) if isinstance(content, int) else content
            Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def ingest(tmp_path: Path, photos: Path) -> Callable[..., tuple]:
    """``ingest(min_side_px=1)`` runs the stage; the result, the rows by name, and what was logged."""
    from quoin.pipeline.core.events import Reporter
    from quoin.pipeline.storage.run import Run
    from quoin.stages.ingest.config import IngestConfig
    from quoin.stages.ingest.stage import INGEST

    def go(**settings) -> tuple:
        run = Run.create(tmp_path / "run", photos=photos, settings=settings, seed=0)
        logs: list[str] = []
        reporter = Reporter(lambda event: logs.append(event["message"]) if event["kind"] == "log" else None)
        result = INGEST(run, IngestConfig(**settings), reporter)
        return result, {row.name: row for row in read_photo_table(run)}, logs

    return go
