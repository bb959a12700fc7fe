"""The generated collection: what its truth says is what its photos show."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, look_at, pixel_grid, project, rays_world
from quoin.tools.synthetic import landmark, trajectories
from quoin.tools.synthetic.config import WILD_SETTINGS, SyntheticConfig, SyntheticTruth
from quoin.tools.synthetic.generate import generate_photos
from quoin.tools.synthetic.lighting import outdoor_radiance
from quoin.tools.synthetic.materials import LANDMARK_MATERIALS, WALL_MATERIALS, SolidNoise, landmark_albedo
from quoin.tools.synthetic.photo_renderer import (
    PhotoDevelopment,
    Solid,
    build_raycaster,
    covered_share,
    render_photo,
    visible_faces,
)
from quoin.tools.synthetic.photo_shoot import build_crowd
from quoin.tools.synthetic.shapes import Scene

NEUTRAL = PhotoDevelopment(np.ones(3))
CONFIG = SyntheticConfig(n_photos=8, width=160, height=120)


@pytest.fixture(scope="module")
def made() -> Scene:
    return landmark.build_landmark(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    generate_photos(path, CONFIG, 0, Reporter())
    return path


@pytest.fixture(scope="module")
def facts(folder: Path) -> SyntheticTruth:
    return SyntheticTruth.model_validate_json((folder / "truth" / "demo.json").read_text())


def photos(folder: Path) -> list[np.ndarray]:
    out = []
    for path in sorted((folder / "photos").glob("*.jpg")):
        with Image.open(path) as picture:
            out.append(np.array(picture))
    return out


def test_writes_the_photos_it_was_asked_for(folder: Path, facts: SyntheticTruth) -> None:
    taken = photos(folder)
    assert len(taken) == facts.n_photos == 8
    for photo in taken:
        assert photo.shape == (120, 160, 3)
        assert photo.std() > 15  # a picture of something


@pytest.mark.slow
def test_the_same_seed_gives_the_same_photos_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        generate_photos(tmp_path / str(seed), CONFIG, seed, Reporter())
    first, again, other = photos(folder), photos(tmp_path / "0"), photos(tmp_path / "1")
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not any(np.array_equal(x, y) for x, y in zip(first, other, strict=True))


def test_exif_says_the_focal_length_by_either_reading(folder: Path, facts: SyntheticTruth) -> None:
    with Image.open(next((folder / "photos").glob("*.jpg"))) as picture:
        exif = picture.getexif()
        details = exif.get_ifd(0x8769)
    assert (exif[0x010F], exif[0x0110]) == ("Quoin", "Demo")
    by_equivalent = details[0xA405] / np.hypot(36, 24) * np.hypot(160, 120)
    by_sensor = float(details[0x920A]) * float(details[0xA20E]) / 10
    assert by_equivalent == pytest.approx(facts.focal_px, rel=1e-3)
    assert by_sensor == pytest.approx(facts.focal_px, rel=1e-3)
    assert 0.9 < facts.focal_px / 160 < 1.1


def test_ingest_finds_the_focal_length(folder: Path, facts: SyntheticTruth) -> None:
    from quoin.stages.ingest.exif import read_exif

    with Image.open(next((folder / "photos").glob("*.jpg"))) as picture:
        assert read_exif(picture).focal_px == pytest.approx(facts.focal_px, rel=0.01)


def test_transforms_describe_the_cameras_that_took_the_photos(folder: Path, facts: SyntheticTruth) -> None:
    data = json.loads(Path(facts.cameras).read_text())
    poses = trajectories.outdoor_walk_cameras(8, 0)
    assert (data["w"], data["h"], data["cx"], data["cy"]) == (160, 120, 80, 60)
    assert data["fl_x"] == data["fl_y"] == facts.focal_px
    for index, frame in enumerate(data["frames"]):
        matrix = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(matrix[:3, 3], centers_world(poses)[index], atol=1e-12)
        ahead = matrix[:3, 3] - 5 * matrix[:3, 2]  # OpenGL cameras look along -z
        pixel, depth = project(poses[index], np.array([100.0, 100, 80, 60]), ahead[None])
        np.testing.assert_allclose(pixel, [[80, 60]], atol=1e-9)
        assert depth[0] == pytest.approx(5)
        assert (Path(facts.cameras).parent / frame["file_path"]).resolve().is_file()


def test_the_truth_is_what_the_facts_say(facts: SyntheticTruth) -> None:
    mesh = trimesh.load(facts.mesh, process=False)
    full = trimesh.load(facts.full_mesh, process=False)
    assert np.linalg.norm(np.ptp(mesh.vertices, axis=0)) == pytest.approx(facts.diagonal_m, rel=1e-6)
    assert 17 < facts.diagonal_m < 21
    assert mesh.area < 0.8 * full.area
    assert np.all(mesh.triangles_center >= np.array(facts.region_low_m) - 1e-5)
    assert np.all(mesh.triangles_center <= np.array(facts.region_high_m) + 1e-5)


def test_pixels_show_the_surface_at_its_place(made: Scene) -> None:
    """A point of the landmark has the same reflectance wherever it is seen from: two cameras, one colour."""
    noise = SolidNoise(0)
    caster = build_raycaster(made.vertices, made.faces)
    solid = Solid(
        caster,
        lambda points, normals, face: landmark_albedo(
            points, normals, made.material[face], noise, textureless_walls=False
        ),
    )
    poses, size = trajectories.outdoor_walk_cameras(40, 0), (200, 150)
    intrinsics = np.array([190.0, 190, 100, 75])
    radiance_function = partial(outdoor_radiance, [solid], noise)
    pictures = [render_photo(radiance_function, pose, intrinsics, size, NEUTRAL) for pose in poses[:6]]
    differences, shuffled = [], []
    rng = np.random.default_rng(0)
    for i in range(6):
        origin, directions = rays_world(poses[i], intrinsics, pixel_grid(*size))
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        depth = caster.cast_rays(rays)["t_hit"].numpy()
        hit = np.isfinite(depth) & (depth < 20)
        points = origin + depth[hit, None] * directions[hit]
        for j in range(6):
            pixel, ahead = project(poses[j], intrinsics, points)
            is_in_region = (ahead > 0) & np.all((pixel >= 1) & (pixel < np.array(size) - 1), axis=1)
            toward = points - centers_world(poses[j : j + 1])[0]
            radiance_function = np.concatenate([points - toward, toward], axis=1).astype(np.float32)
            clear = caster.cast_rays(radiance_function)["t_hit"].numpy() > 1 - 2e-3
            both = np.flatnonzero(is_in_region & clear)
            if i == j or len(both) < 500:
                continue
            here = pictures[i].reshape(-1, 3)[np.flatnonzero(hit)[both]].astype(float)
            at = pixel[both].astype(int)
            there = pictures[j][at[:, 1], at[:, 0]].astype(float)
            differences.append(np.median(np.abs(here - there)))
            shuffled.append(np.median(np.abs(here - rng.permutation(there))))
    assert len(differences) >= 6
    assert np.median(differences) < 0.5 * np.median(shuffled)


def test_seen_faces_are_those_that_cameras_face_and_nothing_hides() -> None:
    """Two parallel squares one behind the other, two cameras before them: the near one is seen, the far one is not."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    quad = np.array([[0, 1, 2], [0, 2, 3]])
    aside = square * 0.2 + np.array([3.0, 0, -1])  # deeper, but nothing before it
    edge_on = square[:, [0, 2, 1]] * 0.2 + np.array([0, 0, 2.0])
    vertices = np.concatenate([square, square * 0.5 - [0, 0, 1], aside, edge_on])
    faces = np.concatenate([quad + 4 * k for k in range(4)])
    poses = np.stack([landmark_camera(x) for x in (-0.05, 0.05)])
    intrinsics = np.array([100.0, 100, 100, 100])
    caster = build_raycaster(vertices, faces)
    both = visible_faces(caster, vertices[faces], poses, intrinsics, (200, 200))
    assert both.tolist() == [True, True, False, False, True, True, False, False]
    assert not visible_faces(caster, vertices[faces], poses[:1], intrinsics, (200, 200)).any()
    narrow = visible_faces(caster, vertices[faces], poses, intrinsics, (130, 200))
    assert narrow.tolist() == [True, True, False, False, False, False, False, False]


def landmark_camera(x: float) -> np.ndarray:
    from quoin.pipeline.geometry.cameras import look_at

    return look_at(np.array([x, 0.0, 6.0]), np.array([x, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))


def test_no_camera_stands_in_something_and_all_look_at_the_temple(made: Scene) -> None:
    poses = trajectories.outdoor_walk_cameras(40, 0)
    centers = centers_world(poses)
    distance = build_raycaster(made.vertices, made.faces).compute_distance(centers.astype(np.float32)).numpy()
    assert distance.min() > 0.5
    _, depth = project(poses[0], np.ones(4), np.zeros((1, 3)))
    assert depth[0] > 0
    for pose in poses:
        pixel, depth = project(pose, np.array([762.7, 762.7, 400, 300]), np.array([[0.0, 0, 3]]))
        assert depth[0] > 0
        assert np.all((pixel[0] > -100) & (pixel[0] < [900, 700]))


def test_passers_by_are_in_photos_and_not_in_the_truth(tmp_path: Path) -> None:
    """A third of the photos has people; the truth ends where the region ends, wherever they stand."""
    config = SyntheticConfig(n_photos=12, width=48, height=36)
    facts = generate_photos(tmp_path, config, 0, Reporter())
    assert 0.25 < facts.n_photos_with_people / 12 < 0.4
    mesh = trimesh.load(facts.mesh, process=False)
    low, high = mesh.bounds
    assert np.all(low >= np.array(facts.region_low_m) - 0.2)
    assert np.all(high <= np.array(facts.region_high_m) + 0.2)


def test_a_crowd_covers_the_share_it_is_asked_for() -> None:
    size, intrinsics = (160, 120), np.array([150.0, 150, 80, 60])
    pose = look_at(np.array([12.0, 0, 1.7]), np.array([0.0, 0, 2]), np.array([0.0, 0, 1]))
    for share in (0.1, 0.25):
        people = build_crowd(share, pose, intrinsics, size, SolidNoise(0), [0])
        assert people is not None
        assert share <= covered_share(people, pose, intrinsics, size) < share + 0.12
    assert build_crowd(0.0, pose, intrinsics, size, SolidNoise(0), [0]) is None


@pytest.mark.slow
def test_wild_photos_differ_in_exposure_tint_and_tone_and_show_more_sky(tmp_path: Path) -> None:
    size = {"n_photos": 6, "width": 48, "height": 36}
    calm = {**WILD_SETTINGS, "crowd": 0.0, "exposure": (1.0, 1.0), "tint": 0.0, "gamma": 1.0}
    photos = {}
    for name, wanted in (("wild", WILD_SETTINGS), ("calm", calm), ("level", {**calm, "pitch_deg": 0.0})):
        facts = generate_photos(tmp_path / name, SyntheticConfig(**size, **wanted), 0, Reporter())
        photos[name] = np.stack([np.asarray(Image.open(p), float) for p in sorted(Path(facts.photos).iterdir())])
        assert (facts.people_share > 0.1) == (name == "wild")
        masks = sorted(Path(facts.masks).iterdir()) if facts.masks else []
        assert len(masks) == facts.n_photos_with_people
        if name == "wild":  # who stands there is hidden, and next to nobody stands behind the landmark
            hidden = sum(float((np.asarray(Image.open(path)) == 0).mean()) for path in masks) / len(photos[name])
            assert abs(hidden - facts.people_share) < 0.06  # that is taken by every eighth pixel, here a few of them
            assert {path.stem for path in masks} <= {path.stem for path in Path(facts.photos).iterdir()}
    means = photos["wild"].mean(axis=(1, 2)) / photos["calm"].mean(axis=(1, 2))
    assert np.ptp(np.log(means.mean(axis=1))) > 0.3
    assert np.ptp(means / means.mean(axis=1, keepdims=True)) > 0.1
    assert photos["calm"][:, :6].mean() > photos["level"][:, :6].mean() + 5


def test_people_stand_on_the_ground_before_the_camera() -> None:
    rng = np.random.default_rng(0)
    poses = trajectories.outdoor_walk_cameras(20, 0)
    met = 0
    for pose in poses:
        spots = trajectories.sample_passers_by(pose, rng)
        assert np.all(np.any(np.abs(spots) > trajectories.TEMPLE_HALF_SIZE_M, axis=1)) or len(spots) == 0
        away = np.linalg.norm(spots - centers_world(pose[None])[0, :2], axis=1)
        assert np.all((away >= 3.0) & (away < 9.0))
        met += len(spots)
    assert met > 10


def test_noise_is_normal_periodic_and_of_its_seed() -> None:
    noise = SolidNoise(0)
    assert noise.volume.mean() == pytest.approx(0, abs=1e-4)
    assert noise.volume.std() == pytest.approx(1, abs=1e-4)
    points = np.random.default_rng(0).uniform(-5, 5, (2000, 3)).astype(np.float32)
    assert np.array_equal(noise.fine(points), SolidNoise(0).fine(points))
    assert not np.allclose(noise.fine(points), SolidNoise(1).fine(points))
    near = points + np.float32(0.001)
    assert np.abs(noise.fine(near) - noise.fine(points)).mean() < 0.2
    assert np.abs(noise.coarse(near) - noise.coarse(points)).mean() < 0.05


@pytest.mark.parametrize("name", LANDMARK_MATERIALS)
def test_every_material_varies_and_reflects_less_than_it_gets(name: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 3, (4000, 3)).astype(np.float32)
    normals = rng.normal(size=(4000, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colours = landmark_albedo(
        points, normals, np.full(4000, LANDMARK_MATERIALS.index(name)), SolidNoise(0), textureless_walls=False
    )
    assert colours.min() > 0
    assert colours.max() < 1
    assert colours.mean(axis=1).std() > 0.02


def test_plain_walls_have_nothing_to_match_and_the_rest_is_as_it_was() -> None:
    points = np.random.default_rng(0).uniform(-3, 3, (2000, 3)).astype(np.float32)
    normals = np.tile(np.array([1, 0, 0], np.float32), (2000, 1))
    for index, name in enumerate(LANDMARK_MATERIALS):
        kind = np.full(2000, index)
        plain = landmark_albedo(points, normals, kind, SolidNoise(0), textureless_walls=True)
        if name in WALL_MATERIALS:
            assert plain.std(axis=0).max() < 0.01
        else:
            assert np.array_equal(plain, landmark_albedo(points, normals, kind, SolidNoise(0), textureless_walls=False))


@pytest.mark.slow
def test_most_photos_register(tmp_path: Path) -> None:
    """What the demo is for: SIFT works on it. 30 photos of full size, 27 at least in one model."""
    pycolmap = pytest.importorskip("pycolmap")
    generate_photos(tmp_path, SyntheticConfig(n_photos=30), 0, Reporter())
    database = tmp_path / "database.db"
    pycolmap.extract_features(database, tmp_path / "photos")
    pycolmap.match_exhaustive(database)
    models = pycolmap.global_mapping(database, tmp_path / "photos", tmp_path)
    assert max(model.num_reg_images() for model in models.values()) >= 27
