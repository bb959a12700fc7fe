"""What decides whether a collection is the one it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.photo_table import to_local_path, to_stored_path
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.listing import list_photos, list_sources


def listed(photos: Path, masks: str = "auto", depth: str | None = None):
    return list_photos(photos, masks, photos / "no run", depth)


@pytest.mark.parametrize("kind", ["mask", "depth"])
def test_a_mask_or_a_depth_map_of_the_same_size_is_another(put, photos: Path, tmp_path: Path, kind: str):
    put("a.jpg", 0)
    file = tmp_path / "beside" / ("a.bmp" if kind == "mask" else "a.png")
    file.parent.mkdir()
    given = {kind: str(file.parent)} if kind == "depth" else {"masks": str(file.parent)}
    seen = set()
    for value in (0, 255):
        shutil.copy(put("x.bmp", np.full((144, 192), value, np.uint8)), file)
        (photos / "x.bmp").unlink()
        found = listed(photos, **given)
        assert list(found.mask_of or found.depth_of) == ["a.jpg"]
        seen.add(found.contents)
    assert len(seen) == 2


def test_masks_among_the_photos_may_be_named_by_their_folder(put, photos: Path):
    put("a.jpg", 0)
    put("a_mask.png", np.full((144, 192), 255, np.uint8))
    assert listed(photos, masks=str(photos)).mask_of == {"a.jpg": photos.resolve() / "a_mask.png"}


@pytest.mark.parametrize("given", [{"masks": "somewhere"}, {"masks": "auto", "depth": "somewhere"}])
def test_masks_and_depth_maps_are_not_for_a_video(tmp_path: Path, given: dict):
    clip = tmp_path / "walk.mp4"
    clip.write_bytes(b"")
    with pytest.raises(QuoinError, match="not for a video"):
        list_sources(clip, [], excluded=tmp_path / "run", **given)


def test_a_run_may_be_moved_and_its_photos_be_named_otherwise(tmp_path: Path, photos: Path, monkeypatch):
    run = Run.create(tmp_path / "run", photos=photos, settings={}, seed=0)
    frame = run.path / "frames" / "walk.mp4" / "000001.png"
    kept = to_stored_path(run, str(frame))
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = Run.open(tmp_path / "moved")
    assert to_local_path(moved, kept) == str(tmp_path / "moved" / "frames" / "walk.mp4" / "000001.png")
    assert (
        to_local_path(moved, str(photos / "a.jpg"))
        == to_stored_path(moved, str(photos / "a.jpg"))
        == str(photos / "a.jpg")
    )
    monkeypatch.chdir(run.photos)
    run = Run.open(tmp_path / "moved")
    run.commit("ingest", "key", StageResult(), 0.0)  # from here on photos of another place are refused
    assert Run.create(tmp_path / "moved", photos="../photos", settings={}, seed=0).manifest("ingest") is not None
