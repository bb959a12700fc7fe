"""What is asked of COLMAP: its database filled, once and whole; many photos placed by a part of their tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from quoin.pipeline.geometry.similarity import fit_similarity
from quoin.stages.pose.colmap import process, reconstruction

N_PHOTOS, N_POINTS = 12, 400


@pytest.fixture
def made(tmp_path: Path) -> pycolmap.Reconstruction:
    """The truth of a database of points on a sphere, matched in all pairs, half a pixel off."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=1, num_frames_per_rig=N_PHOTOS)
    options.num_points3D, options.camera_has_prior_focal_length = N_POINTS, True
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        truth = pycolmap.synthesize_dataset(options, database)
        pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=0.5), truth, database)
    return truth


@pytest.mark.parametrize("many", [N_PHOTOS + 1, N_PHOTOS])
def test_photos_are_where_they_are(
    many: int, made: pycolmap.Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "MIN_PHOTOS_FOR_TRACK_SELECTION", many)
    monkeypatch.setattr(reconstruction, "TRACKS_PER_PHOTO", 60)
    used, mapper = [], pycolmap.global_mapping

    def mapping(database: str, images: str, output: str, options: pycolmap.GlobalPipelineOptions):
        used.append(options.mapper.track_required_tracks_per_view)
        return mapper(database, images, output, options)

    monkeypatch.setattr(pycolmap, "global_mapping", mapping)
    (found,) = reconstruction.map_globally(str(tmp_path / "database.db"), str(tmp_path), str(tmp_path / "out"), 0, 1)
    assert (used[0] == 60) == (many == N_PHOTOS)
    assert found.num_reg_images() == N_PHOTOS
    assert found.num_points3D() >= 0.98 * N_POINTS
    ours, theirs = (
        np.array([model.image(i).projection_center() for i in range(1, N_PHOTOS + 1)]) for model in (found, made)
    )
    fit = fit_similarity(ours, theirs)
    assert np.linalg.norm(fit.apply(ours) - theirs, axis=1).max() < 0.002 * np.ptp(theirs, axis=0).max()


def test_a_database_that_was_being_filled_is_filled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = ["PINHOLE", 400, 300, [300.0, 300.0, 200.0, 150.0], True]
    photos = [{"id": i, "file": f"{i:06d}.jpg", "camera": 0} for i in range(3)]
    job = {"database": str(tmp_path / "database.db"), "cameras": [camera], "photos": photos}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as there:
        there.setattr(pycolmap, "Frame", killed)
        with pytest.raises(KeyboardInterrupt):
            process.import_images(job)
    for _ in range(2):
        process.import_images(job)
        with pycolmap.Database.open(job["database"]) as database:
            assert (database.num_cameras(), database.num_images(), database.num_frames()) == (1, 3, 3)
