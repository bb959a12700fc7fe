"""Rows are copied, and features and pairs read, whatever the folder of the database is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.layout import DamagedError
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.database import (
    FEATURE_TABLES,
    DescriptorReader,
    copy_rows,
    existing_keys,
    find_damage,
    merge_rows,
    pair_ids,
    read_two_view_geometries,
)
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.workspace import Workspace

HOMOGRAPHY = np.array([[1.0, 0.1, 5.0], [-0.1, 1.0, 7.0], [0.0, 0.0, 1.0]])


def write_database(path: Path) -> None:
    """Three photos of two cameras; photo 1 has one feature, and photos 0 and 1 a pair of two matches."""
    with pycolmap.Database.open(str(path)) as database:
        for number, width in ((1, 640), (2, 480)):
            camera = pycolmap.Camera(model="PINHOLE", width=width, height=320, params=[500, 500, 320, 160])
            camera.camera_id = number
            database.write_camera(camera, use_camera_id=True)
        for number, camera_id in ((1, 1), (2, 2), (3, 1)):
            image = pycolmap.Image(name=f"{number}.jpg", camera_id=camera_id, image_id=number)
            database.write_image(image, use_image_id=True)
        write_features(database, 2, np.array([[1, 2, 3, 0.5]], np.float32))
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = pycolmap.TwoViewGeometryConfiguration.PANORAMIC
        geometry.H = HOMOGRAPHY
        geometry.inlier_matches = np.array([[0, 0], [1, 1]], np.uint32)
        database.write_two_view_geometry(1, 2, geometry)
        database.write_two_view_geometry(2, 3, pycolmap.TwoViewGeometry())  # no match was verified


def write_features(database: pycolmap.Database, image_id: int, keypoints: np.ndarray) -> None:
    data = np.arange(128 * len(keypoints), dtype=np.uint8).reshape(-1, 128)
    sift = pycolmap.FeatureDescriptors(data=data, type=pycolmap.FeatureExtractorType.SIFT)
    database.write_keypoints(image_id, keypoints)
    database.write_descriptors(image_id, sift)


def test_features_are_read_with_their_scales(tmp_path: Path) -> None:
    write_database(tmp_path / "features.db")
    with pycolmap.Database.open(str(tmp_path / "features.db")) as database:
        write_features(database, 1, np.array([[1, 2, 5, 0.3], [3, 4, 7, 0.1]], np.float32))
        write_features(database, 3, np.array([[1, 2, 0, -5, 5, 0], [3, 4, 7, 0, 0, 7]], np.float32))
    reader = DescriptorReader(tmp_path / "features.db")
    for photo in (0, 2):
        descriptors, scales = reader(photo)
        np.testing.assert_array_equal(descriptors.ravel(), np.arange(256, dtype=np.uint8))
        np.testing.assert_allclose(scales, [5, 7], rtol=1e-6)
    assert [len(part) for part in reader(3)] == [0, 0]
    reader.close()


@pytest.mark.parametrize("name", ["scan #2", "what?mode=rw", "100 %41", "Höfe"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database, other, without = folder / "database.db", folder / "other.db", folder / "without.db"
    write_database(database)
    copy_rows(database, other, FEATURE_TABLES)
    assert existing_keys(other, "descriptors") == {2}
    copy_rows(database, without, FEATURE_TABLES, [5])
    assert existing_keys(without, "keypoints") == set()
    merge_rows([without, database], without, FEATURE_TABLES)
    merge_rows([other, without], without, FEATURE_TABLES)
    assert existing_keys(without, "keypoints") == {2}
    reader = DescriptorReader(database)
    descriptors, scales = reader(1)
    assert (descriptors[0].tolist(), scales.round(5).tolist()) == (list(range(128)), [3.0])
    assert [part.shape for part in reader(0)] == [(0, 128), (0,)]
    reader.close()
    (pair,) = read_two_view_geometries(database, 1)
    assert (pair.photo_ids, pair.config) == ((0, 1), 5)
    assert np.array_equal(pair.homography, HOMOGRAPHY)
    assert pair.sizes.tolist() == [[640, 320], [480, 320]]
    assert read_two_view_geometries(database, 3) == []
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_pair_ids_are_the_keys_of_the_tables(tmp_path: Path) -> None:
    write_database(tmp_path / "database.db")
    pairs = np.array([[0, 1], [2, 1]])
    assert set(pair_ids(pairs)) == existing_keys(tmp_path / "database.db", "two_view_geometries")
    assert pair_ids(pairs)[0] == 2147483647 * 1 + 2


def test_a_damaged_database_is_unfinished_work_that_is_made_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)
    workspace = Workspace(run, PoseConfig(), Reporter())
    workspace.clear_if_changed("photos")
    write_database(workspace.database)
    workspace.clear_if_changed("photos")
    assert find_damage(workspace.database) == ""
    whole = workspace.database.read_bytes()
    for content in (whole[: len(whole) // 2], b"x" * 5000, whole[:100] + b"\xff" * 400 + whole[500:]):
        workspace.database.write_bytes(content)
        with pytest.raises(DamagedError) as caught:
            workspace.clear_if_changed("photos")
        assert caught.value.stage == "pose"
    workspace.clear_if_changed("other photos")
    assert not workspace.database.exists()


def test_features_of_a_worker_that_cannot_be_read_are_unfinished_work(tmp_path: Path) -> None:
    write_database(tmp_path / "all.db")
    (tmp_path / "features.db").write_bytes(b"no database" * 100)
    with pytest.raises(DamagedError) as caught:
        merge_rows([tmp_path / "features.db"], tmp_path / "all.db", FEATURE_TABLES)
    assert caught.value.stage == "pose"
