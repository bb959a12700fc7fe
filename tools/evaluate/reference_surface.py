"""A surface of triangles or bare points: reading it, sampling it evenly, nearest points on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import normalize
from quoin.pipeline.geometry.mesh import MAX_RAYCAST_FACES, face_area_vectors, face_areas
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene.ply_format import read_ply_surface

Array = np.ndarray
SURFACE_SUFFIXES = (".ply", ".obj", ".stl", ".off", ".glb", ".gltf", ".xyz")
FACES_PER_BATCH = 1 << 20  # to bound memory
MAX_BOUND_CORNERS = 200_000  # face corners that bound distances from above


@dataclass(frozen=True)
class SurfaceGeometry:
    """Triangles, or bare points where there are no ``faces``; float64."""

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]

    @property
    def is_points(self) -> bool:
        return len(self.faces) == 0

    def transformed(self, target_from_source: Similarity) -> SurfaceGeometry:
        return SurfaceGeometry(target_from_source.apply(self.vertices), self.faces)

    def face_areas(self) -> Float[Array, "f"]:
        areas = np.empty(len(self.faces))
        for start in range(0, len(areas), FACES_PER_BATCH):
            rows = slice(start, start + FACES_PER_BATCH)
            areas[rows] = face_areas(self.vertices, self.faces[rows])
        return areas

    def face_normals(self, rows: Int[Array, "n"]) -> Float[Array, "n 3"]:
        """Unit normals of some faces; zero for a face without area."""
        return normalize(face_area_vectors(self.vertices, self.faces[rows]), 1e-30)

    def bounds(self) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
        """Low and high corner of the bounding box."""
        vertices = self.vertices if self.is_points else self.vertices[self._used_vertices()]
        return vertices.min(axis=0), vertices.max(axis=0)

    def submesh(self, faces: Int[Array, "n 3"]) -> SurfaceGeometry:
        """Some of the triangles, with only the vertices they use."""
        part = SurfaceGeometry(self.vertices, faces)
        used = part._used_vertices()
        return SurfaceGeometry(self.vertices[used], (np.cumsum(used, dtype=np.int32) - 1)[faces])

    def _used_vertices(self) -> Bool[Array, "v"]:
        used = np.zeros(len(self.vertices), bool)
        for k in range(3):
            used[self.faces[:, k]] = True
        return used

    def clipped(self, low: Float[Array, "3"], high: Float[Array, "3"]) -> SurfaceGeometry:
        """The part in the box; triangles are cut at its sides."""
        if self.is_points:
            return SurfaceGeometry(self.vertices[in_box(self.vertices, low, high)], self.faces)
        from trimesh.intersections import slice_faces_plane

        within = np.stack([self.vertices >= low, self.vertices <= high])  # side, vertex, axis
        is_fully_inside = np.asarray(within.all(axis=(0, 2)))[self.faces].all(axis=1)
        is_cut = ~is_fully_inside
        for axis in range(3):
            for side in range(2):
                is_cut &= within[side, :, axis][self.faces].any(axis=1)  # triangles beyond a side are left out
        vertices, faces = self.vertices, self.faces[is_cut]
        if len(faces):
            part = self.submesh(faces)
            vertices, faces = part.vertices, part.faces
        for axis in range(3):
            for corner, sign in ((low, 1.0), (high, -1.0)):
                if len(faces):
                    vertices, faces, _ = slice_faces_plane(vertices, faces, sign * np.eye(3)[axis], corner)
        kept = self.submesh(self.faces[is_fully_inside])
        parts = np.asarray(faces, np.int32).reshape(-1, 3) + len(kept.vertices)
        joined = SurfaceGeometry(
            np.concatenate([kept.vertices, np.asarray(vertices)]), np.concatenate([kept.faces, parts])
        )
        return joined.submesh(joined.faces)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Float[Array, "n 3"], Int[Array, "n"]]:
        """``n`` points spread over the area at random, and the face of each. Bare points: at most ``n`` of them."""
        if self.is_points:
            pick = rng.choice(len(self.vertices), min(n, len(self.vertices)), replace=False)
            return self.vertices[pick], np.zeros(len(pick), np.int64)
        areas = np.cumsum(self.face_areas())
        if areas[-1] <= 0:
            return np.zeros((0, 3)), np.zeros(0, np.int64)
        face = np.searchsorted(areas, rng.uniform(0, areas[-1], n), side="right").clip(max=len(areas) - 1)
        a, b, c = (self.vertices[self.faces[face, k]] for k in range(3))
        root, along = np.sqrt(rng.uniform(size=(n, 1))), rng.uniform(size=(n, 1))
        return (1 - root) * a + root * (1 - along) * b + root * along * c, face


def nearest_on_surface(
    surface: SurfaceGeometry, points: Float[Array, "n 3"]
) -> tuple[Float[Array, "n"], Float[Array, "n 3"] | None]:
    """Distances from points to the surface, and its normals there (None on bare points).

    Exact on triangles (Embree through Open3D, float32 about their middle). Surfaces over MAX_RAYCAST_FACES are searched
    in compact parts, each only for the points that it may be nearest to.
    """
    from scipy.spatial import cKDTree

    if surface.is_points:
        return cKDTree(surface.vertices).query(points, workers=-1)[0], None
    parts = list(_face_chunks(surface))
    distances, faces = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
    upper_bounds = distances
    if len(parts) > 1:  # no nearest point is farther than the nearest of some vertices
        corners = surface.vertices[surface.faces[:: max(1, len(surface.faces) // MAX_BOUND_CORNERS), 0]]
        upper_bounds = cKDTree(corners).query(points, workers=-1)[0] * (1 + 1e-6)
    for rows in parts:
        part = surface if rows is None else surface.submesh(surface.faces[rows])
        low, high = part.bounds()
        box_distances = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0.0), axis=1)
        candidates = np.flatnonzero(box_distances <= np.minimum(distances, upper_bounds))
        closest, face = _closest_faces(part, points[candidates])
        better = closest < distances[candidates]
        distances[candidates[better]] = closest[better]
        faces[candidates[better]] = face[better] if rows is None else rows[face[better]]
    return distances, surface.face_normals(faces)


def _face_chunks(surface: SurfaceGeometry) -> Iterator[Int[Array, "m"] | None]:
    """Face rows of compact parts of at most MAX_RAYCAST_FACES each; None where all faces are one part."""
    if len(surface.faces) <= MAX_RAYCAST_FACES:
        yield None
        return
    corners = surface.vertices[surface.faces[:, 0]].astype(np.float32)
    pending = [np.arange(len(corners))]
    while pending:
        rows = pending.pop()
        if len(rows) <= MAX_RAYCAST_FACES:
            yield rows
            continue
        extent = np.ptp(corners[rows], axis=0)
        order = np.argpartition(corners[rows, extent.argmax()], len(rows) // 2)
        pending += [rows[order[len(rows) // 2 :]], rows[order[: len(rows) // 2]]]


def _closest_faces(surface: SurfaceGeometry, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n"], Int[Array, "n"]]:
    """Distance to the nearest face for each point, and that face."""
    import open3d as o3d

    middle = (surface.vertices.min(axis=0) + surface.vertices.max(axis=0)) / 2
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor((surface.vertices - middle).astype(np.float32)),
        o3d.core.Tensor(surface.faces.astype(np.uint32)),
    )
    local = (points - middle).astype(np.float32)
    if not len(local):
        return np.zeros(0), np.zeros(0, np.int64)
    closest = scene.compute_closest_points(local)
    distance = np.linalg.norm(closest["points"].numpy().astype(np.float64) - local, axis=1)
    return distance, closest["primitive_ids"].numpy().astype(np.int64)


def in_box(points: Float[Array, "n 3"], low: Float[Array, "3"], high: Float[Array, "3"]) -> Bool[Array, "n"]:
    """Which points lie in the box."""
    return np.all((points >= low) & (points <= high), axis=1)


def voxel_downsample(points: Float[Array, "n 3"], cell: float) -> Float[Array, "m 3"]:
    """One point per cubic ``cell``, so that what was near the scanner counts no more than what was far."""
    keys = np.floor((points - points.min(axis=0)) / cell).astype(np.int64)
    return points[np.unique(keys, axis=0, return_index=True)[1]]


def point_spacing(points: Float[Array, "n 3"], rng: np.random.Generator) -> float:
    """Median distance from a point to its nearest neighbour."""
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return float("inf")
    subset = points[rng.choice(len(points), min(len(points), 10_000), replace=False)]
    return float(np.median(cKDTree(points).query(subset, k=2, workers=-1)[0][:, 1]))


def read_face_labels(path: Path, n_faces: int) -> Int[Array, "f"] | None:
    """Labels of the triangles of a PLY (pipeline/imaging/labels.py, property ``label`` of its faces); None where not
    every one has one.
    """
    if path.suffix.lower() != ".ply" or not n_faces:
        return None
    surface = read_ply_surface(path)
    labels = surface.face_values.get("label")
    if labels is None or len(surface.face_rows) != n_faces or surface.face_rows.min() < 0:
        return None
    return labels[surface.face_rows].astype(np.int64)


def _load_with_trimesh(path: Path) -> tuple[Float[Array, "v 3"], Int[Array, "f 3"]]:
    import trimesh

    if path.suffix.lower() == ".xyz":
        return np.loadtxt(path, usecols=(0, 1, 2), ndmin=2), np.zeros((0, 3), np.int64)
    loaded = trimesh.load(path, process=False)
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_mesh()
    faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), np.int64).reshape(-1, 3)
    return np.asarray(loaded.vertices, np.float64).reshape(-1, 3), faces


def read_surface(path: Path) -> SurfaceGeometry:
    """Triangles or points of a file (SURFACE_SUFFIXES); QuoinError where it cannot be read or is empty."""
    if not path.is_file():
        raise QuoinError(
            "The file does not exist", where=path, hint=f"give a mesh or points: {', '.join(SURFACE_SUFFIXES)}"
        )
    if path.suffix.lower() not in SURFACE_SUFFIXES:
        raise QuoinError("This is no known format of a surface", where=path, hint=f"use {', '.join(SURFACE_SUFFIXES)}")
    try:
        if path.suffix.lower() == ".ply":
            vertices, faces, *_ = read_ply_surface(path)
        else:
            vertices, faces = _load_with_trimesh(path)
    except Exception as error:  # every reader fails in its own way
        what = error.what if isinstance(error, QuoinError) else error
        raise QuoinError(f"The surface cannot be read: {what}", where=path, hint="export it again as PLY") from error
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise QuoinError("A face has a corner that is no vertex", where=path, hint="export it again as PLY")
    finite = np.asarray(np.isfinite(vertices).all(axis=1))
    if len(faces):
        surface = SurfaceGeometry(np.where(finite[:, None], vertices, 0.0), faces[finite[faces].all(axis=1)])
        empty = len(surface.faces) == 0
    else:
        surface = SurfaceGeometry(vertices[finite], faces)
        empty = not finite.any()
    if empty:
        raise QuoinError("The file holds no triangles and no points", where=path, hint="give a mesh or points")
    return surface
