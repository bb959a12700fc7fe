"""What decides whether a collection is the one it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.scene.photo_table import read_photo_table, to_local_path, to_stored_path
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest import listing
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.listing import list_photos, list_sources
from quoin.stages.ingest.stage import INGEST


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


@pytest.mark.parametrize("name", ["1.ppm", "1.bmp", "unnamed"])
def test_a_photo_of_the_same_size_is_another(put, photos: Path, name: str):
    for seed in (0, 1):
        shutil.copy(put("x.ppm", seed), photos / name)
        (photos / "x.ppm").unlink()
        if seed == 0:
            before = listed(photos).contents
    assert listed(photos).contents != before


def test_a_clip_of_the_same_size_is_another(photos: Path, monkeypatch):
    monkeypatch.setattr(listing, "_check_clip", lambda clip: None)
    contents = set()
    for content in (b"one", b"two"):
        (photos / "a.mp4").write_bytes(content)
        contents.add(list_sources(photos / "a.mp4", [], "auto", photos / "no run").contents)
        contents.add(list_sources(photos, [], "auto", photos / "no run").contents)
    assert len(contents) == 4


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


MASK = np.full((144, 192), 255, np.uint8)
MASK[:48] = 0


def write_named_masks(path: Path, masks: dict[str, str]) -> Path:
    frames = [{"file_path": p, "mask_path": m, "transform_matrix": np.eye(4).tolist()} for p, m in masks.items()]
    path.write_text(json.dumps({"fl_x": 200, "frames": frames}))
    return path


def given_run(tmp_path: Path, photos: Path, given: Path) -> Run:
    return Run.create(tmp_path / "run", photos=photos, settings={"pose": {"known_poses": str(given)}}, seed=0)


@pytest.mark.parametrize("place", ["photos", "beside"])
def test_masks_that_a_transforms_file_names(put, photos: Path, tmp_path: Path, place: str):
    """By mask_path, wherever they lie; a mask that is found by its name wins, and the user's word over both."""
    for i, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg", "d.jpg")):
        put(name, i)
    (tmp_path / place / "segmentation").mkdir(parents=True)
    for i in range(1, 5):
        Image.fromarray(MASK).save(tmp_path / place / "segmentation" / f"{i}.png")
    put("masks/d.png", MASK)
    names = {"photos/a.jpg": 1, "./photos/b": 2, "photos/sub/c.jpg": 3, "photos/d.jpg": 4}
    named = {name: f"./{place}/segmentation/{i}.png" for name, i in names.items()}
    run = given_run(tmp_path, photos, write_named_masks(tmp_path / "transforms.json", named))
    result = INGEST(run, IngestConfig(), Reporter())
    rows = {row.name: row for row in read_photo_table(run)}
    masks = {name: Path(row.mask_path).relative_to(tmp_path).as_posix() for name, row in rows.items() if row.used}
    expected = {name: f"{place}/segmentation/{i}.png" for i, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg"), 1)}
    assert masks == {**expected, "d.jpg": "photos/masks/d.png"}
    assert (result.n_masks, result.n_used) == (4, 4)
    if place == "photos":
        assert rows["segmentation/1.png"].rejection == Rejection(Reason.MASK)
        assert rows["segmentation/4.png"].rejection == Rejection(Reason.MASK, "of no photo")
    for choice, n_masks in (("none", 0), (str(photos / "masks"), 1)):
        result = INGEST(run, IngestConfig(masks=choice), Reporter())
        assert (result.n_masks, result.n_used) == (n_masks, 4)


def test_another_mask_path_is_another_collection(put, photos: Path, tmp_path: Path):
    for i, name in enumerate(("a.jpg", "b.jpg")):
        put(name, i)
        Image.fromarray(np.roll(MASK, 9 * i, axis=0)).save(tmp_path / f"{i}.png")
    given = write_named_masks(tmp_path / "transforms.json", {"a.jpg": "0.png", "b.jpg": "1.png"})
    run = given_run(tmp_path, photos, given)
    keys = [INGEST.key(run, IngestConfig())]
    write_named_masks(given, {"a.jpg": "1.png", "b.jpg": "0.png"})
    keys.append(INGEST.key(run, IngestConfig()))
    Image.fromarray(255 - MASK).save(tmp_path / "0.png")
    keys.append(INGEST.key(run, IngestConfig()))
    assert len(set(keys)) == 3


def test_a_mask_that_is_missing_or_is_the_photo(put, photos: Path, tmp_path: Path):
    for i, name in enumerate(("a.jpg", "b.jpg")):
        put(name, i)
    given = write_named_masks(tmp_path / "transforms.json", {"photos/a.jpg": "photos/a.jpg", "b.jpg": ""})
    run = given_run(tmp_path, photos, given)
    result = INGEST(run, IngestConfig(), Reporter())
    assert (result.n_masks, result.n_used) == (0, 2)
    write_named_masks(given, {"photos/a.jpg": "none.png"})
    with pytest.raises(QuoinError, match=r"The mask of 'a.jpg' cannot be used.*none\.png"):
        INGEST(run, IngestConfig(), Reporter())
