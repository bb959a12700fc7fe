"""Mesh measures and files against shapes whose numbers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.pipeline.geometry.mesh import face_components
from quoin.stages.fuse.clean import (
    CLEAN_PARAMS,
    color_agreement,
    color_support,
    diffuse,
    stereo_support,
    supported_faces,
    typical_disagreement,
)
from quoin.stages.fuse.mesh import Mesh, decimate, edge_counts, write_glb
from tests.fixtures.ply_files import read_ply, write_ply


def box_mesh(size: float = 1.0, at: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    box = trimesh.creation.box((size,) * 3)
    return Mesh(np.asarray(box.vertices) + np.array(at), np.asarray(box.faces))


def ball(subdivisions: int = 4) -> Mesh:
    found = trimesh.creation.icosphere(subdivisions=subdivisions)
    colors = np.rint((np.asarray(found.vertices) + 1) * 127.5).astype(np.uint8)
    return Mesh(np.asarray(found.vertices), np.asarray(found.faces), colors)


def together(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0] + [len(m.vertices_world) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices_world for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]),
    )


def test_areas_and_normals() -> None:
    assert box_mesh(2.0).face_areas().sum() == pytest.approx(24.0)
    sphere = ball()
    np.testing.assert_allclose(sphere.vertex_normals(), sphere.vertices_world, atol=0.02)


def test_edges_of_a_closed_box_have_two_faces_and_a_hole_has_a_boundary() -> None:
    box = box_mesh()
    assert (edge_counts(box.faces)[1] == 2).all()
    open_box = box.submesh(np.arange(12) >= 2)
    assert (edge_counts(open_box.faces)[1] == 1).sum() in (4, 6)  # two faces of one side, or of two


def test_components_count_pieces_not_loose_vertices() -> None:
    mesh = together(box_mesh(), box_mesh(at=(5, 0, 0)), box_mesh(0.1, at=(9, 0, 0)))
    loose = Mesh(np.concatenate([mesh.vertices_world, np.zeros((4, 3))]), mesh.faces)
    count, piece = face_components(loose.faces, len(loose.vertices_world))
    assert count == 3
    assert np.bincount(piece).tolist() == [12, 12, 12]
    assert face_components(np.zeros((0, 3), int), 5)[0] == 0


def test_a_part_keeps_its_vertices_and_colors() -> None:
    sphere = ball(1)
    keep = np.arange(len(sphere.faces)) % 3 == 0
    part = sphere.submesh(keep)
    np.testing.assert_array_equal(part.vertices_world[part.faces], sphere.vertices_world[sphere.faces[keep]])
    assert part.colors is not None and sphere.colors is not None
    np.testing.assert_array_equal(part.colors[part.faces], sphere.colors[sphere.faces[keep]])
    assert len(np.unique(part.faces)) == len(part.vertices_world)


def strip(n: int) -> Mesh:
    """A ribbon of 2 (n - 1) triangles along x, its vertices in pairs 2 i and 2 i + 1 at x = i."""
    x = np.repeat(np.arange(n, dtype=float), 2)
    points = np.stack([x, np.tile([0.0, 1.0], n), np.zeros(2 * n)], axis=1)
    i = 2 * np.arange(n - 1)
    faces = np.concatenate([np.stack([i, i + 2, i + 1], axis=1), np.stack([i + 1, i + 2, i + 3], axis=1)])
    return Mesh(points, faces)


def test_diffusion_keeps_constants_and_spreads_peaks() -> None:
    faces = strip(20).faces
    np.testing.assert_allclose(diffuse(np.full(40, 3.0), faces, 30), 3.0, rtol=1e-5)
    peak = np.zeros(40)
    peak[20] = 1.0
    spread = diffuse(peak, faces, 10)
    assert 0.02 < spread[20] < 0.3
    assert spread[10] < spread[14] < spread[18]


def test_support_counts_photos_that_agree() -> None:
    mesh = strip(40)
    views = np.full(80, 5)
    disagreement = np.full(80, 6.0)
    disagreement[60:] = 40.0
    usual = typical_disagreement(views, disagreement)
    agreed = color_agreement(views, disagreement, usual)
    found = color_support(views, agreed, mesh.faces)
    assert usual == 6.0
    np.testing.assert_allclose(found[:30], 5.0, rtol=0.01)
    assert (found[70:] < 1.5).all()
    usual = typical_disagreement(np.zeros(80, int), np.zeros(80))
    agreed = color_agreement(np.zeros(80, int), np.zeros(80), usual)
    nowhere = color_support(np.zeros(80, int), agreed, mesh.faces)
    assert (nowhere == 0).all()
    assert usual == 1.0


def test_what_is_seen_through_is_not_confirmed_by_the_photo_that_made_it() -> None:
    faces, views = strip(300).faces, np.full(600, 7)
    votes = np.full(600, 3)
    votes[300:] = -1  # one photo says so, two see through
    silent, agreed = np.full(600, 4), np.ones(600)
    found = stereo_support(votes, silent, views, agreed, faces)
    np.testing.assert_allclose(found[:180], 3 + 4 * CLEAN_PARAMS.no_depth_weight, rtol=0.01)
    assert (found[420:] < 0).all()
    assert (stereo_support(np.zeros(600, int), silent, views, 0 * agreed, faces) == 0).all()
    np.testing.assert_allclose(
        stereo_support(np.full(600, 50), 0 * silent, views, agreed, faces), CLEAN_PARAMS.max_vertex_votes, rtol=1e-4
    )


def test_a_surface_known_in_a_few_patches_is_less_confirmed_than_one_known_weakly_all_over() -> None:
    faces, nothing, views = strip(400).faces, np.zeros(800, int), np.full(800, 3)
    patches, gaps = np.full(800, -1), np.zeros(800, int)
    patches[::40] = patches[1::40] = 9  # chance, every 20 vertices
    gaps[np.arange(800) % 8 < 3] = 1
    chance, seen = (stereo_support(votes, nothing, views, np.ones(800), faces)[200:600] for votes in (patches, gaps))
    assert chance.max() < 0 < 0.3 < seen.min()


def test_the_back_of_a_surface_does_not_take_its_votes() -> None:
    faces, votes, views = strip(60).faces, np.zeros(120, int), np.zeros(120, int)
    votes[:60] = views[:60] = 3
    found = stereo_support(votes, 0 * votes, views, np.ones(120), faces)
    assert (found[:56] > 0.3).all()
    assert (found[64:] == -np.inf).all()


def test_small_gaps_stay_closed_and_wide_ones_open() -> None:
    mesh = strip(40)
    found = np.full(80, 3.0)
    found[20:26] = 0.0  # x = 10, 11, 12
    found[50:] = 0.0  # from x = 25 on
    whole = np.zeros(80, bool)
    kept = supported_faces(mesh, found, 2.0, 4.0, whole)
    x = mesh.vertices_world[mesh.faces[kept]][:, :, 0].max(axis=1)
    assert x.max() == 25.0
    assert kept.sum() == 2 * 25
    assert supported_faces(mesh, found, 2.0, 0.0, whole).sum() == 2 * 25 - 4
    cut = np.arange(80) == 22
    assert supported_faces(mesh, found, 2.0, 4.0, cut).sum() == 2 * 25 - 4  # who knows how far that gap goes
    assert not supported_faces(mesh, np.zeros(80), 2.0, 100.0, whole).any()


def test_ply_comes_back_and_other_programs_read_it(tmp_path: Path) -> None:
    sphere = ball(2)
    normals = sphere.vertex_normals()
    write_ply(tmp_path / "m.ply", sphere, normals)
    back = read_ply(tmp_path / "m.ply")
    np.testing.assert_allclose(back.vertices_world, sphere.vertices_world, atol=1e-6)
    np.testing.assert_array_equal(back.faces, sphere.faces)
    np.testing.assert_array_equal(back.colors, sphere.colors)
    theirs = trimesh.load(tmp_path / "m.ply", process=False)
    np.testing.assert_allclose(theirs.vertices, sphere.vertices_world, atol=1e-6)
    np.testing.assert_allclose(theirs.vertex_normals, normals, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(theirs.visual.vertex_colors)[:, :3], sphere.colors)
    assert [p.name for p in tmp_path.iterdir()] == ["m.ply"]  # nothing left of the writing


def test_far_from_the_origin_ply_uses_doubles_and_glb_an_offset(tmp_path: Path) -> None:
    near = ball(3)
    offset = np.array([412_345.25, 5_812_345.5, 120.0])
    far = Mesh(near.vertices_world * 0.5 + offset, near.faces, near.colors)
    for name, mesh in (("far", far), ("near", near)):
        write_ply(tmp_path / f"{name}.ply", mesh, mesh.vertex_normals())
    assert b"property double x" in (tmp_path / "far.ply").read_bytes()[:400]
    assert b"property float x" in (tmp_path / "near.ply").read_bytes()[:400]
    np.testing.assert_allclose(read_ply(tmp_path / "far.ply").vertices_world, far.vertices_world, atol=1e-8)
    write_glb(tmp_path / "far.glb", far, far.vertex_normals())
    scene = trimesh.load(tmp_path / "far.glb")
    [(name, shape)] = scene.geometry.items()
    assert np.abs(shape.vertices).max() < 1
    matrix = scene.graph[scene.graph.geometry_nodes[name][0]][0]
    placed = shape.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    z_up = np.stack([placed[:, 0], -placed[:, 2], placed[:, 1]], axis=1)
    np.testing.assert_allclose(z_up, far.vertices_world, atol=1e-3)


def test_decimation_keeps_shape_and_colors_within_its_budget() -> None:
    sphere = ball(5)
    light = decimate(sphere, 2000)
    assert len(light.faces) <= 2000
    np.testing.assert_allclose(np.linalg.norm(light.vertices_world, axis=1), 1.0, atol=0.01)
    assert light.colors is not None
    expected = (light.vertices_world + 1) * 127.5
    assert np.abs(light.colors - expected).max() < 12
    assert decimate(sphere, 10**6) is sphere
