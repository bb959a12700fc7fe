"""Areas, normals and components of meshes that are known: a square pyramid's faces, a sphere, loose triangles."""

from __future__ import annotations

import numpy as np
import trimesh

from quoin.pipeline.geometry.mesh import (
    connected_components,
    face_area_vectors,
    face_areas,
    face_components,
    vertex_normals,
)


def test_area_of_a_triangle_and_its_direction() -> None:
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 1]])
    np.testing.assert_array_equal(face_areas(vertices, faces), [6, 6])
    np.testing.assert_array_equal(face_area_vectors(vertices, faces), [[0, 0, 12], [0, 0, -12]])


def test_normals_of_a_sphere_point_away_from_its_center() -> None:
    sphere = trimesh.creation.icosphere(3)
    vertices = np.append(sphere.vertices, [[9.0, 9, 9]], axis=0)
    normals = vertex_normals(vertices, np.asarray(sphere.faces))
    np.testing.assert_allclose(normals[:-1], sphere.vertices, atol=0.02)
    np.testing.assert_array_equal(normals[-1], 0)  # no face has this vertex


def test_connected_components() -> None:
    count, component = connected_components(np.array([0, 4, 1]), np.array([2, 3, 2]), 6)
    assert count == 3
    assert component.tolist() == [0, 0, 0, 1, 1, 2]
    assert connected_components(np.zeros(0, int), np.zeros(0, int), 2)[0] == 2


def test_pieces_of_faces() -> None:
    faces = np.array([[0, 1, 2], [4, 5, 6], [2, 1, 3]])
    count, piece = face_components(faces, 8)
    assert count == 2
    assert piece.tolist() == [0, 1, 0]
    assert face_components(np.zeros((0, 3), int), 5)[0] == 0
