"""The whole stage on rendered photos with known cameras."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.geometry import cameras
from quoin.pipeline.geometry.similarity import Similarity, fit_similarity
from quoin.pipeline.scene import posed_images, sensor_depth
from quoin.pipeline.scene.manhattan import read_manhattan_frame
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.registration import filter_photos
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.config import PoseConfig, PoseResult
from quoin.stages.pose.frame.sensor_scale import ScaleEstimate
from quoin.stages.pose.mapping import is_better, is_good_enough, load_component, map_photos
from quoin.stages.pose.output import write_sensor
from quoin.stages.pose.pairing.matching import find_features, find_pairs
from quoin.stages.pose.pairing.pairs import gps_positions_m
from quoin.stages.pose.sfm import initial_cameras
from quoin.stages.pose.stage import POSE
from quoin.stages.pose.undistortion import fit_pinhole
from quoin.stages.pose.workspace import Component, Workspace
from tests.fixtures.camera_files import gl_from
from tests.stages.pose.colmap.test_subprocess_call import children, needs_proc
from tests.stages.pose.room import CAMERA, cameras_around, ingested, render, save, store_turned, texture

CONFIG = PoseConfig(max_edge_px=400, max_features=600, threads=1)
N = 8
TRUTH = cameras_around(N)


class Events(list):
    def __call__(self, event: dict) -> None:
        self.append(event)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Eight photos of the corner, each stored with another EXIF orientation; the seventh has a mask, stored like it."""
    folder = tmp_path_factory.mktemp("corner")
    rows = []
    for index, pose_ in enumerate(TRUTH):
        path = folder / f"corner {index}.jpg"
        save(path, render(pose_), index + 1)
        rows.append({"path": str(path), "orientation": index + 1})
    mask = np.full((300, 400), 255, np.uint8)
    mask[:, :100] = 0
    (folder / "masks").mkdir()
    Image.fromarray(np.ascontiguousarray(store_turned(mask, 7))).save(folder / "masks" / "corner 6.png")
    rows[6]["mask_path"] = str(folder / "masks" / "corner 6.png")
    return rows


@pytest.fixture(scope="session")
def posed(photos: list[dict], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, PoseResult, Events]:
    run, events = ingested(tmp_path_factory.mktemp("out") / "run", photos), Events()
    return run, POSE(run, CONFIG, Reporter(events)), events


def test_all_photos_are_registered_where_they_were_taken(posed: tuple) -> None:
    run, result, _ = posed
    assert (result.n_registered, result.n_components, result.n_masks) == (N, 1, 1)
    assert result.mean_reprojection_px < 0.5
    assert result.warnings == []
    found = posed_images.read_posed(run)
    centers = cameras.centers_world(TRUTH)
    truth_from_world = fit_similarity(cameras.centers_world(found.cam_from_world), centers)
    off = np.linalg.norm(truth_from_world.apply(cameras.centers_world(found.cam_from_world)) - centers, axis=1)
    assert np.median(off) < 0.01  # of an arc 3 units long
    turned = np.einsum("nij,nkj->nik", truth_from_world.apply_to_poses(found.cam_from_world)[:, :, :3], TRUTH[:, :, :3])
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.median(angle) < 0.3
    assert np.degrees(np.arccos(truth_from_world.rotation[2, 2])) < 5  # the cameras were held level


def test_tracks_are_where_points_project(posed: tuple) -> None:
    found = posed_images.read_posed(posed[0])
    for index in range(N):
        mine = found.track_photo == index
        assert mine.sum() >= CONFIG.min_points
        points = found.points_world[found.track_point[mine]]
        pixels, depth = cameras.project(found.cam_from_world[index], found.intrinsics[index], points)
        assert (depth > 0).all()
        assert np.median(np.linalg.norm(pixels - found.track_xy[mine], axis=1)) < 0.5
    assert found.track_lengths.min() >= 2
    assert np.isfinite(found.point_errors_px).all()
    assert np.abs(np.median(found.points_world, axis=0)).max() < 1.0


def test_undistorted_photos_of_all_eight_orientations_are_upright(posed: tuple) -> None:
    """Each is what a pinhole camera of the found intrinsics sees at the true pose."""
    run, _, _ = posed
    found = posed_images.read_posed(run)
    for index in range(N):
        rgb = posed_images.read_photo(run, index)
        width, height = found.sizes[index]
        assert rgb.shape == (height, width, 3)
        ideal = Camera("PINHOLE", int(width), int(height), tuple(found.intrinsics[index]))
        assert np.abs(rgb.astype(float) - render(TRUTH[index], ideal)).mean() < 12  # turned wrongly it is over 40
        for level in range(1, posed_images.PYRAMID_LEVELS):
            assert posed_images.read_photo(run, index, level).shape[:2] == (height >> level, width >> level)


def test_masks_are_turned_with_their_photo_and_kept_from_features(posed: tuple) -> None:
    run, _, events = posed
    assert "Masks for 1 of 8 photos; the others are used whole" in [event.get("message") for event in events]
    found = posed_images.read_posed(run)
    shares = [(posed_images.read_mask(run, index) == 255).mean() for index in range(N)]
    assert min(shares[:6] + shares[7:]) > 0.99
    mask = posed_images.read_mask(run, 6)
    assert 0.7 < shares[6] < 0.8
    assert (mask[:, :80] == 0).all()
    assert (mask[:, 120:] == 255).all()
    assert found.track_xy[found.track_photo == 6, 0].min() > 85


def test_tables_frame_and_progress(posed: tuple) -> None:
    run, result, events = posed
    rows = pq.read_table(run.table("poses")).to_pylist()
    assert [row["photo_id"] for row in rows] == list(range(N))
    assert all(row["registered"] and row["component"] == 0 and row["reason"] == "" for row in rows)
    assert all(abs(row["focal_px"] / 380 - 1) < 0.05 for row in rows)
    pairs = pq.read_table(run.table("pairs")).to_pylist()
    assert result.n_pairs == sum(pair["n_inliers"] > 0 for pair in pairs)
    assert set(pairs[0]) == {"photo_a", "photo_b", "n_matches", "n_inliers"}
    assert "gravity" in posed_images.read_transform(run, "world_from_sfm").provenance
    assert run.scene["frame"].attrs["gravity"]["up_world"][2] == pytest.approx(1.0)
    walls = read_manhattan_frame(run)  # three planes of blobs, without an edge
    assert walls is not None
    assert walls.summary().startswith("no main directions of walls found: ")
    assert (result.n_wall_directions, result.wall_confidence) == (0, walls.confidence)
    assert walls.summary() in [event.get("message") for event in events]
    started = {event["name"] for event in events if event["kind"] == "start"}
    assert {"pose/features", "pose/matching", "pose/undistort"} <= started
    assert any(name.startswith("pose/mapping") for name in started)


def test_sparse_is_a_colmap_model_in_the_world_frame(posed: tuple) -> None:
    import pycolmap

    run, result, _ = posed
    model = pycolmap.Reconstruction(run.path / "sparse" / "0")
    found = posed_images.read_posed(run)
    by_name = {model.image(i).name: model.image(i) for i in model.reg_image_ids()}
    assert set(by_name) == set(found.names) == {f"corner {i}.jpg" for i in range(N)}
    theirs = np.array([by_name[name].cam_from_world().matrix() for name in found.names])
    assert np.abs(theirs - found.cam_from_world).max() < 1e-9
    assert model.num_points3D() == result.components[0].n_points


@pytest.mark.slow
def test_the_same_seed_gives_the_same_poses(posed: tuple, photos: list[dict], tmp_path: Path) -> None:
    run, result, _ = posed
    again = ingested(tmp_path / "again", photos)
    assert POSE(again, CONFIG, Reporter()).n_points == result.n_points
    assert np.allclose(
        posed_images.read_posed(again).cam_from_world, posed_images.read_posed(run).cam_from_world, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["colmap", pytest.param("transforms", marks=pytest.mark.slow)])
def test_camera_files_are_kept(posed: tuple, photos: list[dict], tmp_path: Path, kind: str) -> None:
    first = posed[0]
    if kind == "colmap":
        given, truth = first.path / "sparse", posed_images.read_posed(first).cam_from_world
    else:
        frames = [{"file_path": f"./corner {i}.jpg", "transform_matrix": gl_from(TRUTH[i])} for i in range(N) if i != 3]
        given, truth = tmp_path / "transforms.json", np.delete(TRUTH, 3, axis=0)
        f, cx, cy, k = CAMERA.params
        given.write_text(json.dumps({"fl_x": f, "cx": cx, "cy": cy, "k1": k, "w": 400, "h": 300, "frames": frames}))
    run = ingested(tmp_path / "run", photos)
    result = POSE(run, CONFIG.model_copy(update={"known_poses": str(given)}), Reporter())
    found = posed_images.read_posed(run)
    assert result.mapper == "known_poses"
    assert np.abs(found.cam_from_world - truth).max() < 1e-9
    assert posed_images.read_transform(run, "world_from_sfm").matrix().tolist() == np.eye(4).tolist()
    assert result.n_points > 200
    assert result.median_reprojection_px < 0.6
    if kind == "transforms":
        assert found.photo_ids.tolist() == [0, 1, 2, 4, 5, 6, 7]
        rows = pq.read_table(run.table("poses")).to_pylist()
        assert rows[3]["reason"] == Reason.NO_GIVEN_POSE
        near = np.abs(found.points_world).min(axis=1)  # distance from the nearest of the three planes
        assert np.median(near) < 0.01
        assert fit_pinhole(CAMERA, 1600).width == found.sizes[0, 0]


def given_cameras(path: Path, poses: np.ndarray, focal_factor: float = 1.0) -> str:
    """A transforms.json of the photos with these poses."""
    frames = [{"file_path": f"corner {i}.jpg", "transform_matrix": gl_from(pose)} for i, pose in enumerate(poses)]
    f, cx, cy, k = CAMERA.params
    camera = {"fl_x": focal_factor * f, "cx": cx, "cy": cy, "k1": k, "w": 400, "h": 300}
    path.write_text(json.dumps({**camera, "frames": frames}))
    return str(path)


def test_poses_that_were_swapped_are_not_used(photos: list[dict], tmp_path: Path) -> None:
    poses = TRUTH.copy()
    poses[[2, 6]] = poses[[6, 2]]
    run = ingested(tmp_path / "run", photos)
    given = given_cameras(tmp_path / "transforms.json", poses)
    result = POSE(run, CONFIG.model_copy(update={"known_poses": given}), Reporter())
    found = posed_images.read_posed(run)
    assert found.photo_ids.tolist() == [0, 1, 3, 4, 5, 7]
    assert np.abs(found.cam_from_world - TRUTH[found.photo_ids]).max() < 1e-9
    reasons = pq.read_table(run.table("poses")).column("reason").to_pylist()
    assert reasons[2] == reasons[6] == Reason.WRONG_GIVEN_POSE
    assert "2 given cameras contradict what their photos show" in "".join(result.warnings)
    assert "corner 2.jpg, corner 6.jpg" in "".join(result.warnings)


@pytest.mark.slow
def test_cameras_with_another_focal_length_are_told_of(photos: list[dict], tmp_path: Path) -> None:
    """On a level arc all epipolar lines are nearly level, whatever the focal length: the check can be no stronger."""
    run = ingested(tmp_path / "run", photos)
    given = given_cameras(tmp_path / "transforms.json", TRUTH, 2.0)
    result = POSE(run, CONFIG.model_copy(update={"known_poses": given}), Reporter())
    assert "are not exact" in "".join(result.warnings)
    assert "were refined" not in "".join(result.warnings), "another focal length is no error of a tracker"


def test_cameras_whose_axes_point_elsewhere_are_refused(photos: list[dict], tmp_path: Path) -> None:
    run = ingested(tmp_path / "run", photos)
    wrong = np.diag([1.0, -1.0, -1.0]) @ TRUTH  # y up and z back, as OpenGL has it
    given = given_cameras(tmp_path / "transforms.json", wrong)
    with pytest.raises(QuoinError, match=r"The given cameras contradict the photos.*which way axes point"):
        POSE(run, CONFIG.model_copy(update={"known_poses": given}), Reporter())


@pytest.mark.parametrize("refine", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_tracked_poses_are_refined_or_told_of(photos: list[dict], tmp_path: Path, refine: bool) -> None:
    poses, rng = TRUTH.copy(), np.random.default_rng(0)
    turns = Rotation.from_rotvec(np.radians(0.6 if refine else 0.15) * rng.standard_normal((N, 3))).as_matrix()
    centers = cameras.centers_world(TRUTH) + (0.01 if refine else 0.003) * rng.standard_normal((N, 3))
    poses[:, :, :3] = turns @ poses[:, :, :3]
    poses[:, :, 3] = -np.einsum("kij,kj->ki", poses[:, :, :3], centers)
    run = ingested(tmp_path / "run", photos)
    update = {"known_poses": given_cameras(tmp_path / "t.json", poses), "refine_known_poses": refine}
    result = POSE(run, CONFIG.model_copy(update=update), Reporter())
    found = posed_images.read_posed(run).cam_from_world
    assert len(found) == N
    errors = [turn_deg(given, TRUTH) for given in (poses, found)]
    if refine:
        assert "were refined: by" in "".join(result.warnings)
        assert np.median(errors[1]) < 0.5 * np.median(errors[0])
    else:
        assert np.abs(found - poses).max() < 1e-9
        assert "are not exact" in "".join(result.warnings)
        assert "refine_known_poses=true" in "".join(result.warnings)


def turn_deg(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rotation errors up to one common turn, which poses cannot tell."""
    world = poses[:, :, :3].transpose(0, 2, 1) @ truth[:, :, :3]
    common = Rotation.from_matrix(world).mean().as_matrix()
    return np.degrees(Rotation.from_matrix(world @ common.T).magnitude())


def test_camera_files_of_other_photos_are_refused(photos: list[dict], tmp_path: Path) -> None:
    frames = [{"file_path": f"{i}.png", "transform_matrix": gl_from(TRUTH[i])} for i in range(3)]
    (tmp_path / "t.json").write_text(json.dumps({"fl_x": 380, "frames": frames}))
    run = ingested(tmp_path / "run", photos)
    with pytest.raises(QuoinError, match="0 of the 8 photos have a given camera"):
        POSE(run, CONFIG.model_copy(update={"known_poses": str(tmp_path / "t.json")}), Reporter())
    with pytest.raises(QuoinError, match="do not exist"):
        POSE(run, CONFIG.model_copy(update={"known_poses": str(tmp_path / "none")}), Reporter())


def test_photos_without_overlap_are_one_sentence(tmp_path: Path) -> None:
    rows = []
    for index in range(3):
        path = tmp_path / "photos" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(texture(50 + index)[:300, :400].astype(np.uint8)).save(path)
        rows.append({"path": str(path)})
    with pytest.raises(QuoinError, match="No two photos overlap"):
        POSE(ingested(tmp_path / "run", rows), CONFIG, Reporter())


def test_photos_without_texture_are_told(tmp_path: Path) -> None:
    rows = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.fromarray(np.full((300, 400, 3), 90 + index, np.uint8)).save(path)
        rows.append({"path": str(path)})
    with pytest.raises(QuoinError, match="3 of 3 show hardly any texture"):
        POSE(ingested(tmp_path / "run", rows), CONFIG, Reporter())


@pytest.mark.parametrize(("count", "message"), [(1, "one usable photo"), (2, "two usable photos")])
def test_one_or_two_photos_are_too_few(tmp_path: Path, photos: list[dict], count: int, message: str) -> None:
    with pytest.raises(QuoinError, match=message):
        POSE(ingested(tmp_path / "run", photos[:count]), CONFIG, Reporter())


def rendered(folder: Path, cameras_: list[Camera]) -> list[dict]:
    """Photos of the corner, one by each camera."""
    folder.mkdir()
    for index, (pose_, camera) in enumerate(zip(cameras_around(len(cameras_)), cameras_, strict=True)):
        save(folder / f"{index}.jpg", render(pose_, camera))
    return [{"path": str(folder / f"{index}.jpg")} for index in range(len(cameras_))]


@pytest.mark.slow
def test_photos_that_share_no_camera_get_their_own(tmp_path: Path) -> None:
    """Taken for one camera, as they have no EXIF and one size, though every second is zoomed in."""
    lenses = [Camera("SIMPLE_RADIAL", 400, 300, (focal, 200.0, 150.0, -0.03)) for focal in (330.0, 480.0)] * 5
    run = ingested(tmp_path / "run", rendered(tmp_path / "photos", lenses))
    result = POSE(run, CONFIG, Reporter())
    assert result.n_registered == 10
    focals = [row["focal_px"] for row in pq.read_table(run.table("poses")).to_pylist()]
    assert np.allclose(focals, [330, 480] * 5, rtol=0.03)
    assert result.mean_reprojection_px < 0.4


@pytest.mark.slow
def test_a_principal_point_off_the_centre_is_found(posed: tuple, tmp_path: Path) -> None:
    assert posed[1].n_refined_cameras == 0  # where it is at the centre it stays there
    lens = Camera("SIMPLE_RADIAL", 400, 300, (380.0, 209.0, 144.0, 0.0))
    run = ingested(tmp_path / "run", rendered(tmp_path / "photos", [lens] * 10))
    result = POSE(run, CONFIG, Reporter())
    assert result.n_refined_cameras == 1
    found = posed_images.read_posed(run)
    assert np.abs(found.intrinsics[0, 2:] - [209, 144]).max() < 2.0  # no distortion: canvas and photo are the same


def test_photos_can_be_mapped_again_with_cameras_of_their_own(posed: tuple) -> None:
    run, _, _ = posed
    workspace = Workspace(run, CONFIG, Reporter())
    photos_ = read_photo_table(run, used_only=True)
    own = workspace.with_cameras(*initial_cameras(photos_, share=False), "own_cameras")
    pairs = np.array([[a, b, 50, 50] for a in range(N) for b in range(a)])
    components, mapper = map_photos(own, CONFIG, pairs, N)
    assert (components[0].n_photos, len(components[0].filtered.model.cameras), mapper) == (N, N, "incremental")


@needs_proc
def test_a_step_that_dies_is_done_again_with_one_thread(posed: tuple) -> None:
    workspace, events, before = Workspace(posed[0], CONFIG, Reporter()), Events(), children()
    workspace.report = Reporter(events)
    job, deaths = json.loads((workspace.folder / "match_images.job.json").read_text()), []

    def kill_once(line: str) -> None:
        if not deaths:
            deaths.append(line)
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)

    result = workspace.run_colmap_with_retry(
        "match_images", {key: job[key] for key in ("pairs_file", "block_size")}, kill_once
    )
    assert len(result["pairs"]) == posed[1].n_pairs
    assert "SIGKILL" in events[0]["message"]


def test_mappers_are_compared_by_photos_then_by_error(posed: tuple) -> None:
    workspace = Workspace(posed[0], CONFIG, Reporter())
    whole = load_component(str(workspace.folder / "refined-database"), CONFIG.min_points)
    part = Component(whole.path, filter_photos(whole.filtered.model.keep_photos(np.arange(N) < 5), CONFIG.min_points))
    assert (
        is_better([whole], [part])
        and is_better([part], [])
        and not is_better([part], [whole])
        and not is_better([], [part])
    )
    assert is_good_enough([whole], N)
    assert not is_good_enough([part], N)
    assert not is_good_enough([], 0)


@pytest.mark.slow
def test_two_scenes_in_one_folder(tmp_path: Path, photos: list[dict]) -> None:
    """The larger is used, the other reported, and a photo of neither has its reason."""
    rows = [{**row, "mask_path": ""} for row in photos[:5]]
    for index, pose_ in enumerate(cameras_around(8)[2:6]):
        path = tmp_path / f"other {index}.jpg"
        save(path, render(pose_, seed=1))
        rows.append({"path": str(path)})
    Image.fromarray(np.full((300, 400, 3), 120, np.uint8)).save(tmp_path / "grey.png")
    rows.append({"path": str(tmp_path / "grey.png")})
    run = ingested(tmp_path / "run", rows)
    result = POSE(run, CONFIG, Reporter())
    assert [part.n_photos for part in result.components] == [5, 4]
    assert result.n_registered == 5
    assert result.n_components == 2
    table = pq.read_table(run.table("poses")).to_pylist()
    assert [row["component"] for row in table] == [0] * 5 + [1] * 4 + [-1]
    assert (table[6]["reason"], table[6]["detail"]) == (Reason.OTHER_COMPONENT, "component 1, of 4 photos")
    assert table[9]["reason"] == Reason.FEW_FEATURES
    assert (run.path / "sparse" / "1").is_dir()


@pytest.mark.slow
def test_gps_makes_the_world_metres(photos: list[dict], tmp_path: Path) -> None:
    rows = []
    for row, (east, north, up) in zip(photos, 10 * cameras.centers_world(TRUTH), strict=True):
        place = {"latitude_deg": 48.77 + north / 111193, "longitude_deg": 2.3 + east / 73470, "altitude_m": 80 + up}
        rows.append({**row, **place})
    run = ingested(tmp_path / "run", rows)
    result = POSE(run, CONFIG, Reporter())
    assert result.is_georeferenced
    centers = cameras.centers_world(posed_images.read_posed(run).cam_from_world)
    truth = 10 * cameras.centers_world(TRUTH)
    assert np.abs((centers - np.median(centers, axis=0)) - (truth - np.median(truth, axis=0))).max() < 0.5
    assert math.isclose(run.scene["frame"].attrs["enu_origin"]["latitude_deg"], 48.77, abs_tol=1e-3)


@pytest.mark.slow
def test_pairs_of_a_large_collection_are_found_in_rounds(photos: list[dict], tmp_path: Path) -> None:
    """Eight photos count as large; all neighbours along the arc are verified, and the rounds told."""
    config, events = CONFIG.model_copy(update={"exhaustive_max_photos": 4}), Events()
    run = ingested(tmp_path / "run", photos)
    rows = read_photo_table(run, used_only=True)
    workspace = Workspace(run, config, Reporter(events))
    find_features(workspace, config, rows, *initial_cameras(rows))
    pairs = find_pairs(workspace, config, rows, gps_positions_m(rows))
    verified = {(a, b) for a, b, _, inliers in pairs.tolist() if inliers}
    assert {(i, i + 1) for i in range(N - 1)} <= verified
    assert "pose/matching round 1" in {event["name"] for event in events if event["kind"] == "start"}
    assert any("pairs were matched" in event.get("message", "") for event in events)


def corner_depth(cam_from_world: np.ndarray) -> np.ndarray:
    """Depth of the corner in every pixel of CAMERA, 0 where it is not seen; the unit of the room."""
    xs, ys = np.meshgrid(np.arange(400) + 0.5, np.arange(300) + 0.5)
    ideal = CAMERA.cam_from_img(np.stack([xs, ys], axis=-1).reshape(-1, 2))
    directions = np.column_stack([ideal, np.ones(len(ideal))]) @ cam_from_world[:, :3]
    origin = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    best = np.full(len(directions), np.inf)
    for axis in range(3):
        depth = -origin[axis] / np.where(np.abs(directions[:, axis]) < 1e-9, 1e-9, directions[:, axis])
        uv = np.delete(origin + directions * depth[:, None], axis, axis=1)
        mine = (depth > 0) & (depth < best) & (uv > 0).all(axis=1) & (uv < 4).all(axis=1)
        best[mine] = depth[mine]
    return np.where(np.isfinite(best), best, 0.0).reshape(300, 400)


@pytest.mark.slow
def test_sensor_depth_gives_the_world_its_metres(photos: list[dict], tmp_path: Path) -> None:
    rows = []
    for index, photo in enumerate(photos):
        row = {**photo, "depth_path": "", "depth_unit_m": math.nan, "depth_camera": ""}
        if (
            index != 4
        ):  # one photo without; files of half the size, in millimetres, a unit of the room being half a metre
            depth = np.round(corner_depth(TRUTH[index])[::2, ::2] * 500).astype(np.uint16)
            stored = store_turned(depth, index + 1) if index + 1 >= 5 else depth
            Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"{index}.png")
            row |= {"depth_path": str(tmp_path / f"{index}.png"), "depth_unit_m": 0.001}
        rows.append(row)
    run = ingested(tmp_path / "run", rows)
    result = POSE(run, CONFIG, Reporter())
    assert (result.n_depths, result.is_metric, result.warnings) == (N - 1, True, [])
    found = posed_images.read_posed(run)
    room_from_world = fit_similarity(cameras.centers_world(found.cam_from_world), cameras.centers_world(TRUTH))
    assert room_from_world.scale == pytest.approx(2.0, rel=0.01)
    hop, scale = posed_images.read_transform(run, "world_from_sfm"), sensor_depth.read_sensor_scale(run)
    assert hop is not None
    assert scale is not None
    assert "metres by sensor depth in 7 photos" in hop.provenance
    assert scale.world_per_m == pytest.approx(1.0)
    assert sensor_depth.read_sensor_depth(run, 4) is None
    measured = sensor_depth.read_sensor_depth(run, 5)
    assert measured is not None
    assert (measured.level, measured.depth.shape) == (1, (found.sizes[5, 1] >> 1, found.sizes[5, 0] >> 1))
    both = sensor_depth.add_sensor_points(run, found, np.zeros(0, int))
    in_room = room_from_world.apply(both.points_world[len(found.points_world) :])
    assert len(in_room) > 500
    assert np.median(np.abs(in_room).min(axis=1)) < 0.02
    for ratio, world_per_m in ((1.02, 1.0), (0.4, 2.5)):  # what given cameras are told by a sensor
        told = write_sensor(run, found, 7, ScaleEstimate(ratio, 0.001, 7, 0.01), Similarity.identity(), "given cameras")
        again = sensor_depth.read_sensor_scale(run)
        assert again is not None
        assert (again.world_per_m, len(told)) == (pytest.approx(world_per_m), int(ratio == 0.4))
