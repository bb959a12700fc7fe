"""What strangers' collections bring along: frames of a video, wrong EXIF, photos of something else."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.checks.registration import FilteredModel, residuals_px
from quoin.stages.pose.output import write_tables
from quoin.stages.pose.stage import POSE
from quoin.stages.pose.workspace import Component, SfmResult
from tests.stages.pose.checks.test_ambiguity import model_of
from tests.stages.pose.room import cameras_around, ingested, render, save
from tests.stages.pose.test_stage import CONFIG


def test_photos_that_match_another_group_only_are_told_so(tmp_path: Path) -> None:
    rows = [{"path": str(tmp_path / f"{i}.jpg")} for i in range(14)]
    run = ingested(tmp_path / "run", rows)
    model = model_of([[0]] * 10)  # photos 2 to 11
    parts = [model.keep_photos(np.arange(10) < 6), model.keep_photos(np.arange(10) >= 6)]
    found = SfmResult(
        [Component("", FilteredModel(part, {})) for part in parts],
        "global",
        [500] * 14,
        np.array([[0, 9, 90, 80], [1, 2, 90, 80], [1, 9, 90, 80], [12, 13, 90, 80]]),
        0,
    )
    photos = [PhotoRow(f"{i}.jpg", f"/{i}.jpg", photo_id=i) for i in range(14)]
    write_tables(run, photos, found, residuals_px(parts[0]))
    reasons = [row["reason"] for row in pq.read_table(run.table("poses")).to_pylist()]
    assert [i for i, reason in enumerate(reasons) if reason == Reason.OTHER_COMPONENT] == [0, 8, 9, 10, 11]
    assert reasons[1] == Reason.NOT_REGISTERED
    assert reasons[12] == Reason.MATCHES_UNREGISTERED
    assert reasons[2:8] == [""] * 6


def taken(folder: Path, poses: np.ndarray, **columns: list) -> list[dict]:
    """Photos of the corner, with columns of the photo table."""
    folder.mkdir()
    rows = []
    for index, pose_ in enumerate(poses):
        path = folder / f"{index}.jpg"
        save(path, render(pose_))
        rows.append({"path": str(path), **{name: values[index] for name, values in columns.items()}})
    return rows


@pytest.mark.slow
def test_frames_of_a_video_among_photos(tmp_path: Path) -> None:
    """Many frames a few millimetres apart, as if a corner of 4 m were filmed, beside photos from a step apart."""
    film = [look_at(np.array([3.4, 2.6 + 0.01 * k, 1.7]), np.array([0.9, 0.9, 0.8])) for k in range(10)]
    rows = taken(tmp_path / "photos", np.concatenate([cameras_around(6), film]))
    result = POSE(ingested(tmp_path / "run", rows), CONFIG, Reporter())
    assert result.n_registered == 16
    assert result.warnings == []


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [8, 1])
def test_a_wrong_focal_length_in_exif_is_found_and_told(wrong: int, tmp_path: Path) -> None:
    """Three times too long: for all photos of one camera, or for one photo of its own."""
    focals = [3 * 380.0] * wrong + [380.0] * (8 - wrong)
    groups = [1] * wrong + [2] * (8 - wrong)
    rows = taken(tmp_path / "photos", cameras_around(8), focal_px=focals, group=groups)
    run = ingested(tmp_path / "run", rows)
    result = POSE(run, CONFIG, Reporter())
    assert result.n_registered == 8
    assert np.allclose([row["focal_px"] for row in pq.read_table(run.table("poses")).to_pylist()], 380, rtol=0.03)
    (text,) = [text for text in result.warnings if "EXIF" in text]
    assert f"is wrong for {wrong} photos (for example 0.jpg: 1140 px, found 38" in text
