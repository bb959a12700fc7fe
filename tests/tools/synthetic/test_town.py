"""The generated town: it grows with its size, its drone notes where it is, and its truth is the dry land."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, project
from quoin.stages.ingest.exif import Exif, read_exif
from quoin.stages.pose.frame.world_frame import enu_m
from quoin.tools.synthetic import town, trajectories
from quoin.tools.synthetic.config import TOWN_SETTINGS, SyntheticConfig, SyntheticTruth
from quoin.tools.synthetic.facades import town_albedo
from quoin.tools.synthetic.generate import generate_photos
from quoin.tools.synthetic.houses import HOUSE_SHAPES, house_parts
from quoin.tools.synthetic.materials import SolidNoise
from quoin.tools.synthetic.photo_renderer import build_raycaster

INTRINSICS, SIZE = np.array([762.7, 762.7, 400, 300]), (800, 600)


@pytest.fixture(scope="module")
def quarter() -> town.Town:
    return town.build_town(1, 0)


@pytest.fixture(scope="module")
def four() -> town.Town:
    return town.build_town(4, 0)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> SyntheticTruth:
    config = SyntheticConfig(quarters=1, width=80, height=60, **TOWN_SETTINGS)
    return generate_photos(tmp_path_factory.mktemp("town"), config, 0, Reporter())


def poses_of(size: int) -> np.ndarray:
    columns, rows = town.grid_shape(size)
    return trajectories.flight_cameras((columns * town.QUARTER_SIZE_M, rows * town.QUARTER_SIZE_M), INTRINSICS, SIZE, 0)


@pytest.mark.parametrize(("size", "grid"), [(1, (1, 1)), (4, (2, 2)), (6, (3, 2)), (7, (7, 1)), (64, (8, 8))])
def test_quarters_lie_in_a_grid_as_near_to_square_as_there_is(size: int, grid: tuple[int, int]) -> None:
    assert town.grid_shape(size) == grid


def test_street_coordinates_are_found_again() -> None:
    s, t = np.random.default_rng(0).uniform(-20, 400, (2, 1000))
    found = town.street_from_world(*town.world_from_street(s, t))
    np.testing.assert_allclose(found, (s, t), atol=1e-4)


def test_photos_grow_with_the_area() -> None:
    counts = {size: len(poses_of(size)) for size in (4, 16, 64)}
    assert counts[4] >= 60
    assert counts[64] / counts[16] == pytest.approx(4, rel=0.15)


def test_neighbours_on_a_line_overlap_as_they_should() -> None:
    """The ground a photo shows lies by 60 to 80 % in the next of its line."""
    upright = poses_of(16)[:60]
    centers = centers_world(upright)
    shared = []
    for one, two, a, b in zip(upright, upright[1:], centers, centers[1:], strict=False):
        if np.linalg.norm(a - b) < 20:  # of one line
            corners = np.stack(np.meshgrid(np.linspace(-38, 38, 40), np.linspace(-30, 30, 40)), -1).reshape(-1, 2)
            ground = np.column_stack([a[:2] + corners, np.zeros(len(corners))])
            seen = [
                np.all((p >= 0) & (p < SIZE), axis=1) for p in (project(x, INTRINSICS, ground)[0] for x in (one, two))
            ]
            shared.append((seen[0] & seen[1]).sum() / seen[0].sum())
    assert len(shared) > 20
    assert 0.6 < np.median(shared) < 0.85


def test_a_quarter_is_the_same_in_a_town_of_any_size(quarter: town.Town) -> None:
    larger = town.build_town(2, 0)
    n = int((quarter.object_index > 0).sum())
    np.testing.assert_array_equal(larger.vertices[larger.faces[:n]], quarter.vertices[quarter.faces[:n]])
    assert len(larger.faces) > 1.6 * len(quarter.faces)
    other = town.build_town(1, 1)
    assert other.vertices.shape != quarter.vertices.shape or not np.allclose(other.vertices, quarter.vertices)


def test_the_truth_is_dry_land_within_its_region(facts: SyntheticTruth) -> None:
    mesh, full = (trimesh.load(path, process=False) for path in (facts.mesh, facts.full_mesh))
    assert mesh.area < full.area
    assert np.all(full.bounds[0] >= np.array(facts.region_low_m) - 1)
    assert np.all(full.bounds[1] <= np.array(facts.region_high_m) + 1e-3)
    assert np.ptp(full.bounds, axis=0)[:2].max() < 60  # the lake is 160 m wide on every side
    assert mesh.bounds[1][2] > 6  # roofs are seen


def test_photos_show_a_town_and_are_the_same_for_the_same_seed(facts: SyntheticTruth, tmp_path: Path) -> None:
    again = generate_photos(tmp_path, SyntheticConfig(quarters=1, width=80, height=60, **TOWN_SETTINGS), 0, Reporter())
    paths = sorted(Path(facts.photos).glob("*.jpg"))
    assert len(paths) == facts.n_photos == again.n_photos
    pictures = [pixels(path) for path in paths]
    assert np.median([picture.std() for picture in pictures]) > 25
    for path, picture in zip(paths[:5], pictures, strict=False):
        np.testing.assert_array_equal(pixels(Path(again.photos) / path.name), picture)


def noted_in(path: Path) -> Exif:
    with Image.open(path) as picture:
        return read_exif(picture)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_exif_says_where_the_drone_was_and_when(facts: SyntheticTruth) -> None:
    paths = sorted(Path(facts.photos).glob("*.jpg"))
    noted = [noted_in(path) for path in paths]
    places = np.array([[e.latitude_deg, e.longitude_deg, e.altitude_m] for e in noted])
    centers = centers_world(trajectories.flight_cameras((38.0, 38.0), np.array([76.27, 76.27, 40, 30]), (80, 60), 0))
    off = enu_m(places, np.array(trajectories.ORIGIN_GEODETIC)) - centers
    assert np.abs(off.mean(axis=0)).max() < 0.3
    assert off.std() == pytest.approx(trajectories.GPS_SIGMA_M, rel=0.3)
    assert len({e.taken_at for e in noted}) == len(noted)


def test_no_drone_flies_into_anything(four: town.Town) -> None:
    distance = build_raycaster(four.vertices, four.faces).compute_distance(
        centers_world(poses_of(4)).astype(np.float32)
    )
    assert distance.numpy().min() > 20


@pytest.mark.parametrize("shape", sorted(set(HOUSE_SHAPES)))
def test_a_house_has_walls_below_its_roof_and_stands_on_its_lot(shape: str) -> None:
    pieces = list(house_parts(shape, 8.0, 9.0, 2, np.random.default_rng(0)))
    walls = trimesh.util.concatenate([mesh for name, mesh in pieces if name == "wall"])
    tops = trimesh.util.concatenate([mesh for name, mesh in pieces if name in ("roof", "gravel")])
    assert walls.bounds[0][2] < -1
    assert tops.bounds[1][2] > 5.8
    assert np.all(walls.bounds[0][:2] >= [-0.01, -0.01])
    assert walls.bounds[1][0] <= 8.01
    for name, mesh in pieces:
        outwards = mesh.face_normals[:, 2] > 0.9
        assert name != "roof" or not outwards.all()


def test_every_material_is_painted_within_bounds(four: town.Town) -> None:
    rng = np.random.default_rng(0)
    face = rng.choice(len(four.faces), 20_000)
    points = four.vertices[four.faces[face]].mean(axis=1).astype(np.float32)
    normals = np.cross(*(four.vertices[four.faces[face, k]] - four.vertices[four.faces[face, 0]] for k in (1, 2)))
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
    painted = town_albedo(four, points, normals, face, SolidNoise(0))
    assert painted.min() >= 0.01
    assert painted.max() <= 0.95
    assert set(np.unique(four.material[face])) >= set(range(len(town.TOWN_MATERIALS))) - {
        town.TOWN_MATERIALS.index("water")
    }
    assert painted[four.material[face] == town.TOWN_MATERIALS.index("wall")].std() > 0.05
