"""Reading reference cameras, matching names, aligning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene.camera_files import read_given_cameras
from quoin.tools.evaluate.reference_cameras import (
    ReferenceCameras,
    align_to_reference,
    match_camera_names,
    read_cameras,
)
from tests.fixtures.camera_files import write_colmap_binary, write_colmap_text, write_transforms
from tests.fixtures.synthetic import ring_of_cameras

POSES = ring_of_cameras(8, 4.0, 1.0)
POSES[::2, :, 3] *= 1.1  # two rings, or heights and turns about the axis would be free
NAMES = [f"{i:03d}.jpg" for i in range(8)]


def reference(poses: np.ndarray = POSES) -> ReferenceCameras:
    return ReferenceCameras(list(NAMES), centers_world(poses), poses[:, :, :3])


def test_reads_transforms_json(tmp_path: Path) -> None:
    flip = np.diag([1.0, -1.0, -1.0])
    frames = []
    for name, pose in zip(NAMES, POSES, strict=True):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = pose[:, :3].T @ flip, centers_world(pose[None])[0]
        frames.append({"file_path": f"./images/{name}", "transform_matrix": matrix.tolist()})
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    read = read_cameras(tmp_path / "transforms.json")
    assert read.names[0] == "./images/000.jpg"
    np.testing.assert_allclose(read.centers, centers_world(POSES), atol=1e-12)
    np.testing.assert_allclose(read.rotations, POSES[:, :, :3], atol=1e-12)


@pytest.mark.parametrize("text", [True, False])
def test_reads_a_colmap_model(tmp_path: Path, text: bool) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=100, height=80, params=[90, 90, 50, 40])
    model.add_camera_with_trivial_rig(camera)
    for i, (name, pose) in enumerate(zip(NAMES, POSES, strict=True), start=1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    (model.write_text if text else model.write_binary)(str(tmp_path))
    read = read_cameras(tmp_path)
    order = np.argsort(read.names)
    assert [read.names[i] for i in order] == NAMES
    np.testing.assert_allclose(read.centers[order], centers_world(POSES), atol=1e-9)
    np.testing.assert_allclose(read.rotations[order], POSES[:, :, :3], atol=1e-9)


def test_reads_strecha_cameras(tmp_path: Path) -> None:
    for name, pose in zip(NAMES, POSES, strict=True):
        k = [[90, 0, 50], [0, 90, 40], [0, 0, 1], [0, 0, 0]]
        numbers = [*k, *pose[:, :3].T, centers_world(pose[None])[0], [100, 80]]
        (tmp_path / f"{name}.camera").write_text("\n".join(" ".join(map(str, row)) for row in numbers))
    read = read_cameras(tmp_path)
    assert read.names == NAMES
    np.testing.assert_allclose(read.centers, centers_world(POSES), atol=1e-9)
    np.testing.assert_allclose(read.rotations, POSES[:, :, :3], atol=1e-9)


def test_reads_the_measured_cameras_of_strecha_fountain() -> None:
    folder = Path("../shared/data/strecha_fountain_p11/gt_dense_cameras")
    if not folder.exists():
        pytest.skip("the real photo sets are not here")
    read = read_cameras(folder)
    assert len(read.names) == 11
    np.testing.assert_allclose(np.linalg.det(read.rotations), 1.0, atol=1e-4)
    # The fountain lies before all of them: some point is in front of every camera.
    ahead = read.centers + 10 * read.rotations[:, 2]
    middle = ahead.mean(axis=0)
    assert np.all(np.einsum("nj,nj->n", read.rotations[:, 2], middle - read.centers) > 0)


def test_reads_a_table_of_centres(tmp_path: Path) -> None:
    rows = "".join(f"{n},{c[0]},{c[1]},{c[2]}\n" for n, c in zip(NAMES, centers_world(POSES), strict=True))
    (tmp_path / "centres.csv").write_text("name,x,y,z\n" + rows)
    read = read_cameras(tmp_path / "centres.csv")
    assert read.rotations is None
    np.testing.assert_allclose(read.centers, centers_world(POSES), atol=1e-12)
    _, errors, _ = align_to_reference(NAMES, POSES, read)
    assert errors.rotation_median_deg is None


TABLE = list(zip(NAMES, centers_world(POSES).tolist(), strict=True))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    "rows",
    [
        ["Name,X,Y,Z", *(f"{n},{x},{y},{z}" for n, (x, y, z) in TABLE)],
        ["id;Z; NAME ;X;Y", *(f"7;{z};{n};{x};{y}".replace(".", ",") for n, (x, y, z) in TABLE), ";;;;"],
        ["x\ty\tz\tname", *(f'{x}\t{y}\t{z}\t"{n}"' for n, (x, y, z) in TABLE), ""],
    ],
)
def test_reads_the_tables_of_spreadsheets(tmp_path: Path, encoding: str, rows: list[str]) -> None:
    (tmp_path / "Centers.CSV").write_text("\r\n".join(rows) + "\r\n", encoding=encoding)
    read = read_cameras(tmp_path / "Centers.CSV")
    assert [name.replace(",", ".") for name in read.names] == NAMES
    np.testing.assert_allclose(read.centers, centers_world(POSES), atol=1e-12)


@pytest.mark.parametrize("write", [write_colmap_text, write_colmap_binary, write_transforms])
def test_reads_what_poses_reads(tmp_path: Path, write: Callable) -> None:
    is_model = write is not write_transforms
    place = tmp_path / ("sparse/0" if is_model else "transforms.json")
    write(place, NAMES, POSES)
    for path in (tmp_path, place, *([place.parent, *place.iterdir()] if is_model else [])):
        read = read_cameras(path)
        assert read.names == [given.name for given in read_given_cameras(path)] == NAMES
        np.testing.assert_allclose(read.centers, centers_world(POSES), atol=1e-12)
        np.testing.assert_allclose(read.rotations, POSES[:, :, :3], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("a.json", '{"frames": []}'),
        ("a.json", "[1]"),
        ("a.csv", "name,x,y\nb,1,2\n"),
        ("a.csv", "name,x,y,z\nb,1,2,up\n"),
        ("a.csv", "name,x,y,z\nb,1,2\n"),
        ("a.csv", "name,x,y,z\nb,1,2,nan\n"),
        ("a.csv", "name,x,y,z\nb,1,2,1e300\n"),
        ("a.csv", "name,x,y,z\n" + "b" * 200_000 + ",1,2,3\n"),
        ("a.csv", ""),
        ("a.txt", "1 2 3"),
        ("0.camera/none", "x"),
        ("strecha/0.camera", "1 2 3"),
        ("strecha/0.camera", "1 " * 26),
    ],
)
def test_refuses_what_holds_no_cameras(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(QuoinError):
        read_cameras(tmp_path if path.parent == tmp_path / "0.camera" else path.parent if "strecha" in name else path)


@pytest.mark.parametrize("name", ["centers.csv", "0.camera"])
def test_any_damage_ends_in_cameras_or_one_sentence(tmp_path: Path, name: str) -> None:
    numbers = [[90, 0, 50], [0, 90, 40], [0, 0, 1], [0, 0, 0], *POSES[0, :, :3].T, [1.0, 2.0, 3.0], [100, 80]]
    rows = ["name,x,y,z", *(f"{n},{x},{y},{z}" for n, (x, y, z) in TABLE)]
    valid = "\n".join(rows if name.endswith("csv") else [" ".join(map(str, row)) for row in numbers]).encode()

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, len(valid)), st.integers(0, 40), st.binary(max_size=8) | st.sampled_from([b"1e300", b'"']))
    def damaged(at: int, length: int, content: bytes) -> None:
        (tmp_path / name).write_bytes(valid[:at] + content + valid[at + length :])
        try:
            read = read_cameras(tmp_path / name if name.endswith("csv") else tmp_path)
        except QuoinError:
            return
        assert np.isfinite(read.centers).all()
        assert read.rotations is None or np.isfinite(read.rotations).all()

    damaged()


def test_names_match_by_the_end_of_their_paths() -> None:
    ours, theirs = match_camera_names(["a/1.jpg", "b/1.jpg", "b/2.jpg"], ["b/1.jpg", "a/1.jpg", "c/3.jpg"])
    assert list(zip(ours, theirs, strict=True)) == [(0, 1), (1, 0)]
    ours, theirs = match_camera_names(["1.jpg", "2.jpg"], ["../photos/2.JPG", "../photos/1.jpg"])
    assert list(zip(ours, theirs, strict=True)) == [(0, 1), (1, 0)]
    ours, theirs = match_camera_names(["set/1.jpg", "set/2.jpg"], ["images\\1.png", "images\\2.png"])
    assert list(zip(ours, theirs, strict=True)) == [(0, 0), (1, 1)]
    ours, theirs = match_camera_names(["a/1.png", "b/1.png"], ["images/b/1.jpg", "images/a/1.jpg"])
    assert list(zip(ours, theirs, strict=True)) == [(0, 1), (1, 0)]
    ours, _ = match_camera_names(["a/1.jpg", "b/1.jpg"], ["c/1.jpg"])
    assert len(ours) == 0  # which of the two it is cannot be known
    ours, _ = match_camera_names(["a/1.jpg"], ["1.jpg", "b/1.jpg"], unused_names=["b/1.jpg"])
    assert ours.tolist() == [0]
    ours, _ = match_camera_names(["a/1.jpg"], ["1.jpg", "c/1.jpg"])
    assert len(ours) == 0  # which of the two is this photo's cannot be known


@settings(max_examples=10)
@given(
    scale=st.floats(0.01, 100),
    angle=st.floats(-3, 3),
    shift=st.tuples(*[st.floats(-100, 100)] * 3),
)
def test_alignment_finds_any_similarity(scale: float, angle: float, shift: tuple) -> None:
    c, s = np.cos(angle), np.sin(angle)
    truth_from_world = Similarity(scale, np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.array(shift))
    found, errors, rows = align_to_reference(NAMES, POSES, reference(truth_from_world.apply_to_poses(POSES)))
    assert found.scale == pytest.approx(scale, rel=1e-9)
    assert errors.center_max_percent < 1e-6
    assert errors.rotation_max_deg < 1e-5
    assert errors.n_matched == errors.n_reference == len(rows) == 8


def test_a_wild_camera_does_not_move_the_alignment_and_is_not_hidden() -> None:
    wild = POSES.copy()
    wild[3, :, 3] += 1e4
    found, errors, rows = align_to_reference(NAMES, wild, reference())
    assert found.scale == pytest.approx(1.0, rel=1e-9)
    assert errors.n_inliers == 7
    assert errors.center_median_m < 1e-6
    assert errors.center_max_m > 1e3
    assert [row["name"] for row in rows if not row["inlier"]] == [NAMES[3]]


def test_a_turned_camera_shows_in_degrees() -> None:
    turned = POSES.copy()
    angle = np.radians(0.5)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turned[2] = turn @ turned[2]
    _, errors, rows = align_to_reference(NAMES, turned, reference())
    assert rows[2]["rotation_error_deg"] == pytest.approx(0.5, abs=1e-6)
    assert errors.rotation_max_deg == pytest.approx(0.5, abs=1e-6)
    assert errors.center_max_m < 1e-6


def test_refuses_too_few_cameras_and_cameras_in_a_line() -> None:
    with pytest.raises(QuoinError, match="Only 0 of the 8"):
        align_to_reference([f"other{i}.jpg" for i in range(8)], POSES, reference())
    line = POSES.copy()
    line[:, :, :3] = np.eye(3)
    line[:, :, 3] = -np.arange(8)[:, None] * np.array([1.0, 2.0, 0.5])
    with pytest.raises(QuoinError, match="in a line"):
        align_to_reference(NAMES, line, reference(line))
