"""The whole stage on shapes with a formula, in one, two and four blocks: closed, in place, coloured, cleaned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.scene.world import EarthOrigin, World, write_world
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.blend import bricks_to_march
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.mesh import edge_counts
from quoin.stages.fuse.stage import FUSE
from quoin.stages.fuse.tiles import (
    count_torn_edges,
    extract_tiles,
    make_edge_keys,
    read_block_sdfs,
    read_patch,
    to_mesh,
)
from tests.fixtures import synthetic
from tests.fixtures.ply_files import read_ply

B = 8
N = 4  # bricks a side
VOXEL = 2.8 / (N * B)
LATTICE = Lattice((-1.4, -1.4, -1.4), VOXEL, B)
BOX = BrickBox((0, 0, 0), (N, N, N))


def surface_of(tmp_path: Path, sdfs: list[synthetic.Sdf], halo: int = 1) -> tuple[trimesh.Trimesh, int]:
    """The raw welded surface of blocks with the given SDFs, in the world, and its torn edges."""
    run = synthetic.make_run(tmp_path, "ingest", "pose")
    synthetic.write_blocks(run, LATTICE, synthetic.split_box(BOX, len(sdfs), halo), sdfs)
    block_sdfs = read_block_sdfs(run, 64)
    bricks = bricks_to_march(block_sdfs)
    keys = make_edge_keys(block_sdfs, B)
    patch = read_patch(run, extract_tiles(run, block_sdfs, bricks, keys, B, Reporter()))
    mesh = to_mesh(patch, keys, LATTICE)
    return trimesh.Trimesh(mesh.vertices_world, mesh.faces, process=False), count_torn_edges(patch, keys, bricks, B)


def assert_seamless(mesh: trimesh.Trimesh) -> None:
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)
    assert (edge_counts(np.asarray(mesh.faces))[1] == 2).all()


SHAPES = {
    "sphere": (synthetic.sphere(1.0, (0.03, -0.02, 0.01)), 2),
    "torus": (synthetic.torus(0.85, 0.33), 0),
    "boxes": (synthetic.boxes(((-0.2, 0.1, -0.1), (0.61, 0.52, 0.73)), ((0.4, 0.2, 0.3), (0.52, 0.41, 0.33))), 2),
}


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_closed_shapes_come_out_closed_and_in_place(tmp_path: Path, shape: str, n_blocks: int) -> None:
    truth, euler = SHAPES[shape]
    mesh, torn = surface_of(tmp_path, [truth] * n_blocks)
    assert_seamless(mesh)
    assert torn == 0
    assert mesh.euler_number == euler
    assert mesh.volume > 0
    error = np.abs(truth(np.asarray(mesh.vertices))) / VOXEL
    assert (np.quantile(error, 0.8) if shape == "boxes" else error.max()) < 0.05  # a grid cuts the corners of boxes


@pytest.mark.parametrize("n_blocks", [2, 4])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_blocks_that_disagree_still_make_one_closed_surface(tmp_path: Path, shape: str, n_blocks: int) -> None:
    truth, _ = SHAPES[shape]
    sdfs = [synthetic.wavy(truth, 0.8 * VOXEL, 0.9, seed) for seed in range(n_blocks)]
    mesh, torn = surface_of(tmp_path, sdfs)
    assert_seamless(mesh)
    assert torn == 0
    error = np.abs(truth(np.asarray(mesh.vertices))) / VOXEL
    assert np.quantile(error, 0.95) < 0.85


def test_the_blend_has_no_step_between_blocks(tmp_path: Path) -> None:
    # the right block sees the same ball a voxel larger: the radius must pass smoothly from one to the other
    small, large = synthetic.sphere(1.0), synthetic.sphere(1.0 + VOXEL)
    mesh, _ = surface_of(tmp_path, [small, large])
    points = np.asarray(mesh.vertices)
    grown = (np.linalg.norm(points, axis=1) - 1.0) / VOXEL
    edges = mesh.edges_unique
    assert np.abs(grown[edges[:, 0]] - grown[edges[:, 1]]).max() < 0.25
    width = B * VOXEL
    assert np.abs(grown[points[:, 0] < -width]).max() < 0.05
    assert np.abs(grown[points[:, 0] > width] - 1).max() < 0.05


def test_a_plane_ends_at_the_lattice_and_nowhere_else(tmp_path: Path) -> None:
    mesh, torn = surface_of(tmp_path, [synthetic.wavy(synthetic.plane(0.21), 0.5 * VOXEL, 1.0, s) for s in range(4)])
    assert torn == 0
    ends, count = edge_counts(np.asarray(mesh.faces))
    rim = np.asarray(mesh.vertices)[np.unique(ends[count == 1])]
    outer = 1.4 + B * VOXEL  # core and halo
    np.testing.assert_allclose(np.abs(rim[:, :2]).max(axis=1), outer, atol=1e-6)
    assert (count <= 2).all()


def test_blocks_that_contradict_each_other_are_closed_off(tmp_path: Path) -> None:
    mesh, torn = surface_of(tmp_path, [synthetic.plane(-0.9), synthetic.plane(0.9)])
    assert torn == 0
    ends, count = edge_counts(np.asarray(mesh.faces))
    rim = np.asarray(mesh.vertices)[np.unique(ends[count == 1])]
    np.testing.assert_allclose(np.abs(rim[:, :2]).max(axis=1), 1.4 + B * VOXEL, atol=1e-6)


def test_a_torn_surface_is_noticed(tmp_path: Path) -> None:
    run_ = synthetic.make_run(tmp_path, "ingest", "pose")
    synthetic.write_blocks(run_, LATTICE, synthetic.split_box(BOX, 1), [synthetic.sphere(1.0)])
    block_sdfs = read_block_sdfs(run_, 64)
    bricks = bricks_to_march(block_sdfs)
    keys = make_edge_keys(block_sdfs, B)
    patch = read_patch(run_, extract_tiles(run_, block_sdfs, bricks, keys, B, Reporter()))
    assert count_torn_edges(patch, keys, bricks, B) == 0
    # a brick that was known but not marched leaves a hole with a border between known bricks
    holed = read_patch(run_, extract_tiles(run_, block_sdfs, bricks[1:], keys, B, Reporter()))
    assert count_torn_edges(holed, keys, bricks, B) > 0
    assert count_torn_edges(holed, keys, bricks[1:], B) == 0


# -- the stage -------------------------------------------------------------------------------------------------------


def albedo(points: np.ndarray) -> np.ndarray:
    return 127 + 70 * np.sin(3 * points)


def make_scene(
    tmp_path: Path,
    sdfs: list[synthetic.Sdf],
    *,
    heights: tuple[float, ...] = (-2.0, 0.0, 2.0),
    url: str | None = None,
) -> Run:
    """A ball of radius 1, photos of it from rings at the given heights at changing exposure, blocks trained."""
    run = synthetic.make_run(tmp_path, "ingest", "pose", url=url)
    rings = [synthetic.ring_of_cameras(6, 3.5, h) for h in heights]
    posed = synthetic.posed_points(np.concatenate(rings), synthetic.sphere_points(600), synthetic.faces_camera)
    posed_images.write_posed(run, posed)
    rng = np.random.default_rng(0)
    for i in range(len(posed)):
        gain = np.exp(rng.normal(0, 0.1, 3))
        photo = synthetic.sphere_photo(posed, i, 1.0, lambda p, gain=gain: albedo(p) * gain)
        posed_images.write_photo(run, i, synthetic.pyramid(photo), np.full(photo.shape[:2], 255, np.uint8))
    synthetic.write_blocks(run, LATTICE, synthetic.split_box(BOX, len(sdfs)), sdfs)
    return run


def test_a_ball_comes_out_whole_and_in_its_colours(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [synthetic.sphere(1.0)] * 2, heights=(-6.0, -2.0, 0.0, 2.0, 6.0))
    result = FUSE(made, FuseConfig(), Reporter())
    assert result.n_components == 1
    assert result.n_boundary_edges == result.n_torn_edges == 0
    assert result.n_faces == result.n_raw_faces
    assert result.area_m2 == pytest.approx(4 * np.pi, rel=0.01)
    assert result.largest_component_share == pytest.approx(1.0)
    mesh = read_ply(made.path / "mesh.ply")
    assert len(mesh.faces) == result.n_faces
    assert len(mesh.vertices_world) == result.n_vertices
    assert mesh.colors is not None
    # colours are right up to the exposure of the whole collection
    ratio = mesh.colors / albedo(mesh.vertices_world)
    np.testing.assert_allclose(ratio / np.median(ratio, axis=0), 1.0, atol=0.12)
    np.testing.assert_allclose(np.median(ratio, axis=0), 1.0, atol=0.1)
    # five rings of six photos all around: every vertex is seen from many sides
    assert set(mesh.values) == {"confidence", "views", "angle_deg"}
    assert np.quantile(mesh.values["confidence"], 0.1) > 0.5
    assert result.confident_share > 0.9
    assert 6 <= np.median(mesh.values["views"]) <= mesh.values["views"].max() <= 30
    assert np.median(mesh.values["angle_deg"]) > 60
    light = trimesh.load(made.path / "mesh.glb")
    assert sum(len(g.faces) for g in light.geometry.values()) == result.glb_faces <= 300_000
    header = (made.path / "mesh.ply").read_bytes()[:400].decode("ascii", "ignore")
    assert "comment world frame; unit of unknown length" in header
    assert not (made.path / "georeference.json").exists()


def test_where_gps_is_used_the_mesh_says_metres_and_its_origin_lies_beside_it(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [synthetic.sphere(1.0)])
    origin = EarthOrigin(48.77, 9.18, 245.0, residual_m=1.0, n_photos=20)
    write_world(made, World("m", np.array([0.0, 0.0, 1.0]), 0.9, origin))
    FUSE(made, FuseConfig(), Reporter())
    assert b"comment world frame; meters; z up\n" in (made.path / "mesh.ply").read_bytes()[:400]
    assert json.loads((made.path / "georeference.json").read_text())["origin"]["longitude_deg"] == 9.18


def test_a_block_that_is_missing_leaves_a_hole_that_the_mesh_names(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [synthetic.sphere(1.0)], heights=(-6.0, -2.0, 0.0, 2.0, 6.0))
    synthetic.write_blocks(made, LATTICE, synthetic.split_box(BOX, 4, 0), [synthetic.sphere(1.0)] * 4)
    lost = read_partition(made).blocks[1]
    del made.scene[f"blocks/{lost.id}/sdf"]  # nobody may ask for it

    class Trained(StageResult):
        failed_blocks: dict[str, str]

    made.invalidate("train")
    made.commit("train", "key of train without a block", Trained(failed_blocks={lost.id: "out of luck"}), 0.0)
    result = FUSE(made, FuseConfig(), Reporter())
    assert result.missing_blocks == (lost.id,)
    assert result.n_blocks == 3
    assert result.area_m2 == pytest.approx(0.75 * 4 * np.pi, rel=0.02)
    assert result.n_boundary_edges > 0
    assert result.n_torn_edges == 0, "a hole is no tear"
    mesh = read_ply(made.path / "mesh.ply")
    low, high = LATTICE.box_world(lost.core)
    inside = np.all((mesh.vertices_world > low + VOXEL) & (mesh.vertices_world < high - VOXEL), axis=1)
    assert not inside.any()
    header = (made.path / "mesh.ply").read_bytes().partition(b"end_header")[0].decode()
    assert f"comment hole: block {lost.id} is missing, from " in header


def test_what_no_photo_sees_and_islands_are_dropped(tmp_path: Path) -> None:
    ball = synthetic.sphere(1.0)
    inside, floater = synthetic.sphere(0.4), synthetic.sphere(0.05, (0.0, 0.0, 1.25))

    def sdf(p: np.ndarray) -> np.ndarray:
        hollow = np.maximum(ball(p), -inside(p))  # a hollow that nobody can look into
        return np.minimum(hollow, floater(p))

    made = make_scene(tmp_path, [sdf])
    result = FUSE(made, FuseConfig(island_diameter=0.1), Reporter())
    points = read_ply(made.path / "mesh.ply").vertices_world
    radius = np.linalg.norm(points, axis=1)
    assert np.abs(radius - 1).max() < 0.1
    assert result.dropped_unsupported_faces > 200
    assert result.dropped_island_faces == 8


def test_what_most_photos_see_as_sky_is_dropped(tmp_path: Path) -> None:
    """A ball with a cloud beside it: labels say that there is sky wherever the ball is not."""
    ball, cloud = synthetic.sphere(1.0), synthetic.sphere(0.14, (0.0, 0.0, 1.22))
    made = make_scene(tmp_path, [lambda p: np.minimum(ball(p), cloud(p))])
    before = FUSE(made, FuseConfig(min_support=0), Reporter())
    assert before.dropped_sky_faces == 0
    assert before.n_components == 2
    posed = posed_images.read_posed(made)
    for i in range(len(posed)):
        photo = synthetic.sphere_photo(posed, i, 1.0, lambda p: np.full_like(p, 255))
        priors.write_labels(made, i, np.where(photo.max(axis=2) < 255, labels.SKY, 0).astype(np.uint8), 0)
    made.invalidate("fuse")
    after = FUSE(made, FuseConfig(min_support=0), Reporter())
    assert after.n_components == 1
    assert after.dropped_sky_faces > 0.9 * (before.n_faces - after.n_faces)
    assert np.linalg.norm(read_ply(made.path / "mesh.ply").vertices_world, axis=1).max() < 1.02


def test_a_chip_that_one_photo_matched_by_chance_goes_and_what_stereo_confirms_stays(tmp_path: Path) -> None:
    ball, chip = synthetic.sphere(1.0), synthetic.sphere(0.15, (0.0, 0.0, 1.3))
    made = make_scene(tmp_path, [lambda p: np.minimum(ball(p), chip(p))])
    config = FuseConfig(island_diameter=0.0)
    assert FUSE(made, config, Reporter()).n_components == 2  # without stereo colours decide, and here they agree
    posed = posed_images.read_posed(made)
    for i in range(len(posed)):
        depth = synthetic.sphere_depth(posed, i, 1.0)
        if i == 0:  # this photo has taken the chip's place for the sky's
            depth = np.where(depth == 0, synthetic.sphere_depth(posed, i, 0.15, (0.0, 0.0, 1.3)), depth)
        priors.write_depth(made, i, depth, 0)
    made.invalidate("fuse")
    result = FUSE(made, config, Reporter())
    assert result.n_components == 1
    radius = np.linalg.norm(read_ply(made.path / "mesh.ply").vertices_world, axis=1)
    assert np.abs(radius - 1).max() < 0.05


def test_the_unseen_side_is_cut_off(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [synthetic.sphere(1.0)], heights=(4.0,))
    result = FUSE(made, FuseConfig(), Reporter())
    points = read_ply(made.path / "mesh.ply").vertices_world
    assert points[:, 2].max() > 0.99
    assert points[:, 2].min() > -0.9
    assert result.n_boundary_edges > 20
    assert result.n_torn_edges == 0


def test_confidence_falls_towards_the_side_that_few_photos_see_and_is_kept_in_both_files(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [synthetic.sphere(1.0)], heights=(4.0,))
    result = FUSE(made, FuseConfig(), Reporter())
    mesh = read_ply(made.path / "mesh.ply")
    confidence, height = mesh.values["confidence"], mesh.vertices_world[:, 2]
    assert confidence[height > 0.9].min() > 0.8
    assert confidence[height < -0.3].max() < 0.5
    assert 0.5 < result.confident_share < 1
    light = trimesh.load(made.path / "mesh.glb", force="mesh", process=False)
    kept = np.asarray(light.vertex_attributes["_CONFIDENCE"]).reshape(-1)
    np.testing.assert_array_equal(kept, confidence)  # small enough not to be decimated


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [synthetic.wavy(synthetic.sphere(1.0), 0.3 * VOXEL, 0.8, s) for s in range(2)])
    FUSE(made, FuseConfig(), Reporter())
    first = [(made.path / name).read_bytes() for name in ("mesh.ply", "mesh.glb")]
    made.invalidate("fuse")
    FUSE(made, FuseConfig(cache_bricks=27), Reporter())
    assert [(made.path / name).read_bytes() for name in ("mesh.ply", "mesh.glb")] == first


@pytest.mark.parametrize("stereo", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_surface_in_many_parts_is_that_of_one(tmp_path: Path, monkeypatch, stereo: bool) -> None:
    """A ball, a ball beside it that no stereo confirms, an island; in parts that cut all of them."""
    ball, beside = synthetic.wavy(synthetic.sphere(1.0), 0.3 * VOXEL, 0.8, 1), synthetic.sphere(0.2, (0.0, 0.0, 1.15))
    speck = synthetic.sphere(0.06, (0.0, 1.25, 0.02))
    made = make_scene(tmp_path, [lambda p: np.minimum(np.minimum(ball(p), beside(p)), speck(p))] * 2)
    posed = posed_images.read_posed(made)
    for i in range(len(posed)) if stereo else ():
        priors.write_depth(made, i, synthetic.sphere_depth(posed, i, 1.0), 0)
    options = {"island_diameter": 0.08, "glb_faces": 1000}
    one = FUSE(made, FuseConfig(**options), Reporter())
    whole, light = read_ply(made.path / "mesh.ply"), trimesh.load(made.path / "mesh.glb", force="mesh", process=False)
    made.invalidate("fuse")
    monkeypatch.setattr("quoin.stages.fuse.tiles.TILE_BRICKS", 1)
    monkeypatch.setattr(
        "quoin.stages.fuse.mesh_chunks.HALO_TILES", 4
    )  # bricks are small here: support spreads over all of them
    many = FUSE(made, FuseConfig(part_faces=1500, **options), Reporter())
    parted = read_ply(made.path / "mesh.ply")
    assert many.n_raw_faces > 3 * 1500
    for name in ("n_vertices", "n_faces", "n_components", "n_boundary_edges", "n_torn_edges", "dropped_island_faces",
                 "dropped_unsupported_faces"):  # fmt: skip
        assert getattr(many, name) == getattr(one, name), name
    assert (one.dropped_unsupported_faces if stereo else one.dropped_island_faces) > 0
    assert many.area_m2 == pytest.approx(one.area_m2, rel=1e-6)
    assert many.largest_component_share == pytest.approx(one.largest_component_share, rel=1e-6)
    order, sorted_ = (np.lexsort(mesh.vertices_world.T) for mesh in (whole, parted))
    np.testing.assert_array_equal(whole.vertices_world[order], parted.vertices_world[sorted_])
    assert whole.colors is not None and parted.colors is not None
    assert np.abs(whole.colors[order].astype(int) - parted.colors[sorted_]).max() <= 3  # exposures from other samples
    np.testing.assert_allclose(parted.values["views"][sorted_], whole.values["views"][order])
    corners = [np.sort(mesh.vertices_world[mesh.faces].sum(axis=(1, 2))) for mesh in (whole, parted)]
    np.testing.assert_allclose(*corners, atol=1e-5)
    assert not (made.path / "work" / "fuse").exists()
    coarse = trimesh.load(made.path / "mesh.glb", force="mesh", process=False)
    assert 500 < len(coarse.faces) <= 1000
    assert coarse.area == pytest.approx(light.area, rel=0.05)
    np.testing.assert_allclose(coarse.bounds, light.bounds, atol=2 * VOXEL)


@pytest.mark.slow
def test_parts_of_which_nothing_stays_are_no_trouble(tmp_path: Path, monkeypatch) -> None:
    """A second ball that all stereo sees through, in a part of its own."""
    monkeypatch.setattr("quoin.stages.fuse.tiles.TILE_BRICKS", 1)
    ball, beside = synthetic.sphere(0.5, (0.0, 0.0, -0.7)), synthetic.sphere(0.25, (0.0, 0.0, 1.0))
    made = make_scene(tmp_path, [lambda p: np.minimum(ball(p), beside(p))])
    posed = posed_images.read_posed(made)
    for i in range(len(posed)):
        depth = synthetic.sphere_depth(posed, i, 0.5, (0.0, 0.0, -0.7))
        priors.write_depth(made, i, np.where(depth == 0, 10.0, depth).astype(np.float32), 0)
    result = FUSE(made, FuseConfig(part_faces=200, glb_faces=1000, island_diameter=0.0), Reporter())
    mesh = read_ply(made.path / "mesh.ply")
    assert mesh.vertices_world[:, 2].max() < 0.0
    assert len(mesh.faces) == result.n_faces < result.n_raw_faces - 200
    assert mesh.faces.max() == len(mesh.vertices_world) - 1


@pytest.mark.slow
def test_parts_that_know_only_their_neighbours_leave_no_seam(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("quoin.stages.fuse.tiles.TILE_BRICKS", 1)
    made = make_scene(tmp_path, [synthetic.sphere(1.0)] * 2, heights=(-6.0, -2.0, 0.0, 2.0, 6.0))
    result = FUSE(made, FuseConfig(part_faces=500), Reporter())
    assert result.n_raw_faces > 8 * 500
    assert result.n_boundary_edges == result.n_torn_edges == 0
    assert result.n_components == 1
    mesh = read_ply(made.path / "mesh.ply")
    assert_seamless(trimesh.Trimesh(mesh.vertices_world, mesh.faces, process=False))
    assert result.confident_share > 0.9


def test_no_surface_is_one_clear_sentence(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [lambda p: np.ones(p.shape[:-1])] * 2, heights=(0.0,))
    with pytest.raises(QuoinError, match="no SDF sign change in any of 2 blocks"):
        FUSE(made, FuseConfig(), Reporter())
    assert made.manifest("fuse") is None
    assert not (made.path / "mesh.ply").exists()


def test_a_surface_that_nobody_sees_is_one_clear_sentence(tmp_path: Path) -> None:
    made = make_scene(tmp_path, [lambda p: -synthetic.sphere(0.3)(p)], heights=(-1.0, 1.0))  # a hollow in the solid
    with pytest.raises(QuoinError, match="There is no surface that photos confirm"):
        FUSE(made, FuseConfig(), Reporter())
