"""The global mapper: many photos are placed by a part of their tracks, as well and with as many points as by all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pipeline.similarity import fit_similarity
from stages.pose import reconstruction

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
    monkeypatch.setattr(reconstruction, "MANY", many)
    monkeypatch.setattr(reconstruction, "TRACKS_A_PHOTO", 60)
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
