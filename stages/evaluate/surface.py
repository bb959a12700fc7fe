"""A surface as triangles or as bare points: read from files, sampled evenly, asked for its nearest point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from pipeline.errors import QuoinError
from pipeline.similarity import Similarity

Array = np.ndarray
FORMATS = (".ply", ".obj", ".stl", ".off", ".glb", ".gltf", ".xyz")


@dataclass(frozen=True)
class Surface:
    """Triangles, or bare points where there are no ``faces``. Float64, in whatever frame its user names."""

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]

    @property
    def is_points(self) -> bool:
        return len(self.faces) == 0

    def moved(self, target_from_source: Similarity) -> Surface:
        return Surface(target_from_source.apply(self.vertices), self.faces)

    def face_areas(self) -> Float[Array, "f"]:
        return np.linalg.norm(self._crosses(), axis=1) / 2

    def face_normals(self) -> Float[Array, "f 3"]:
        """Unit normals; of a face without area zero."""
        crosses = self._crosses()
        return crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-30)

    def _crosses(self) -> Float[Array, "f 3"]:
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    def clipped(self, low: Float[Array, "3"], high: Float[Array, "3"]) -> Surface:
        """What lies in the box; triangles are cut at its sides."""
        if self.is_points:
            return Surface(self.vertices[inside(self.vertices, low, high)], self.faces)
        from trimesh.intersections import slice_faces_plane

        whole = inside(self.vertices, low, high)[self.faces].all(axis=1)
        vertices, faces = self.vertices, self.faces[~whole]
        for axis in range(3):
            for corner, sign in ((low, 1.0), (high, -1.0)):
                if len(faces):
                    vertices, faces, _ = slice_faces_plane(vertices, faces, sign * np.eye(3)[axis], corner)
        joined = np.concatenate([self.faces[whole], np.asarray(faces, np.int64).reshape(-1, 3) + len(self.vertices)])
        used, index = np.unique(joined, return_inverse=True)
        return Surface(np.concatenate([self.vertices, np.asarray(vertices)])[used], index.reshape(-1, 3))

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


class Nearest:
    """Nearest point of a surface: exact on triangles (Embree through Open3D, float32 about their middle)."""

    def __init__(self, surface: Surface) -> None:
        self._points = surface.is_points
        if self._points:
            from scipy.spatial import cKDTree

            self._tree = cKDTree(surface.vertices)
            return
        import open3d as o3d

        self._middle = (surface.vertices.min(axis=0) + surface.vertices.max(axis=0)) / 2
        self._normals = surface.face_normals()
        self._scene = o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            o3d.core.Tensor((surface.vertices - self._middle).astype(np.float32)),
            o3d.core.Tensor(surface.faces.astype(np.uint32)),
        )

    def __call__(self, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n"], Float[Array, "n 3"] | None]:
        """Distances, and the normals there (None on bare points)."""
        if self._points:
            return self._tree.query(points, workers=-1)[0], None
        local = (points - self._middle).astype(np.float32)
        found = self._scene.compute_closest_points(local)
        distance = np.linalg.norm(found["points"].numpy().astype(np.float64) - local, axis=1)
        return distance, self._normals[found["primitive_ids"].numpy().astype(np.int64)]


def inside(points: Float[Array, "n 3"], low: Float[Array, "3"], high: Float[Array, "3"]) -> Bool[Array, "n"]:
    """Which points lie in the box."""
    return np.all((points >= low) & (points <= high), axis=1)


def thinned(points: Float[Array, "n 3"], cell: float) -> Float[Array, "m 3"]:
    """One of the points per cubic ``cell``: so that a scanner's near side counts no more than its far side."""
    keys = np.floor((points - points.min(axis=0)) / cell).astype(np.int64)
    return points[np.unique(keys, axis=0, return_index=True)[1]]


def spacing(points: Float[Array, "n 3"], rng: np.random.Generator) -> float:
    """Median distance from a point to its nearest neighbour."""
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return float("inf")
    some = points[rng.choice(len(points), min(len(points), 10_000), replace=False)]
    return float(np.median(cKDTree(points).query(some, k=2, workers=-1)[0][:, 1]))


def read_labels(path: Path, n_faces: int) -> Int[Array, "f"] | None:
    """Property ``label`` of the faces of a PLY (pipeline/labels.py), None where the file has none for each face."""
    import trimesh

    if path.suffix.lower() != ".ply" or not n_faces:
        return None
    raw = trimesh.load(path, process=False).metadata.get("_ply_raw", {})  # trimesh leaves unknown properties there
    data = raw.get("face", {}).get("data")
    if not isinstance(data, np.ndarray) or "label" not in (data.dtype.names or ()) or len(data) != n_faces:
        return None
    return data["label"].astype(np.int64)


def read_surface(path: Path) -> Surface:
    """Triangles or points of a file (FORMATS); QuoinError where it cannot be read or is empty."""
    import trimesh

    if not path.is_file():
        raise QuoinError("There is no such file", where=path, do=f"name a mesh or points: {', '.join(FORMATS)}")
    if path.suffix.lower() not in FORMATS:
        raise QuoinError("This kind of file is not a surface we read", where=path, do=f"use {', '.join(FORMATS)}")
    try:
        if path.suffix.lower() == ".xyz":
            loaded = trimesh.PointCloud(np.loadtxt(path, usecols=(0, 1, 2), ndmin=2))
        else:
            loaded = trimesh.load(path, process=False)
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_mesh()
    except Exception as error:  # every reader fails in its own way
        raise QuoinError(f"The surface cannot be read: {error}", where=path, do="export it again as PLY") from error
    vertices = np.asarray(loaded.vertices, np.float64).reshape(-1, 3)
    faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), np.int64).reshape(-1, 3)
    finite = np.asarray(np.isfinite(vertices).all(axis=1))
    if len(faces):
        surface = Surface(np.where(finite[:, None], vertices, 0.0), faces[finite[faces].all(axis=1)])
        empty = len(surface.faces) == 0
    else:
        surface = Surface(vertices[finite], faces)
        empty = not finite.any()
    if empty:
        raise QuoinError("The file holds no surface", where=path, do="name a mesh or points")
    return surface
