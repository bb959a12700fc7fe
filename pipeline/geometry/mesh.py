"""Areas, normals and connected components of triangle meshes, as arrays of vertices and faces."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray

MAX_RAYCAST_FACES = 6_000_000  # faces of one ray-casting scene: at about 150 bytes each, 0.9 GB


def face_area_vectors(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f 3"]:
    """Normal of every face, as long as twice its area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def face_areas(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f"]:
    """Area of every face, in the square of the vertices' unit."""
    return 0.5 * np.linalg.norm(face_area_vectors(vertices, faces), axis=1)


def vertex_normals(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "v 3"]:
    """Unit normals (float64): the mean of the faces around, weighted by area; zero for a vertex without faces."""
    area_vectors = face_area_vectors(vertices, faces)
    total = np.zeros((len(vertices), 3))
    for axis in range(3):
        for corner in range(3):
            total[:, axis] += np.bincount(faces[:, corner], area_vectors[:, axis], len(vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.where(length > 0, length, 1.0)


def connected_components(first: Int[Array, "m"], second: Int[Array, "m"], count: int) -> tuple[int, Int[Array, "n"]]:
    """Number of connected components of ``count`` nodes, and the component (0, 1, …) of each.

    The nodes ``first[i]`` and ``second[i]`` are connected.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components as label_nodes

    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    n_components, component = label_nodes(edges, directed=False)
    return int(n_components), component


def face_components(faces: Int[Array, "f 3"], n_vertices: int) -> tuple[int, Int[Array, "f"]]:
    """Number of connected pieces that the faces form, and the piece (0, 1, …) of every face."""
    if len(faces) == 0:
        return 0, np.zeros(0, np.int64)
    first, second = np.concatenate([faces[:, 0], faces[:, 0]]), np.concatenate([faces[:, 1], faces[:, 2]])
    _, component = connected_components(first, second, n_vertices)
    pieces, piece = np.unique(component[faces[:, 0]], return_inverse=True)  # vertices without faces are no pieces
    return len(pieces), piece
