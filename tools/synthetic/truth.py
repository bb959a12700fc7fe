"""The part of a surface that its cameras see, which a reconstruction can be scored on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open3d as o3d
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.cameras import centers_world, frustum_query, is_in_image, normalize, project

Array = np.ndarray
MIN_CAMERAS = 2  # that see a triangle: one alone cannot tell how far away it is
MIN_VIEW_COSINE = 0.1  # faces seen at less than 6 degrees from their plane do not count as seen


def visible_faces(
    scene: o3d.t.geometry.RaycastingScene,
    triangles: Float[Array, "f 3 3"],
    cam_from_world: Float[Array, "n 3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
    occluders: Sequence[o3d.t.geometry.RaycastingScene | None] | None = None,
) -> Bool[Array, "f"]:
    """Mask of the triangles that at least MIN_CAMERAS cameras see: in the picture, not edge-on, the middle not hidden.

    Triangles count from either side; the inside of a solid is hidden by its own faces. ``occluders``: for each camera,
    what stands before it in its photo only.
    """
    middle = triangles.mean(axis=1)
    normal = normalize(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]))
    count = np.zeros(len(triangles), np.int64)
    occluders = occluders or [None] * len(cam_from_world)
    within = frustum_query(middle)
    for pose, center, occluder in zip(cam_from_world, centers_world(cam_from_world), occluders, strict=True):
        candidates = within(pose, intrinsics, size)
        pixels, depth = project(pose, intrinsics, middle[candidates])
        toward = center - middle[candidates]
        distance = np.linalg.norm(toward, axis=1)
        facing = np.abs((normal[candidates] * toward).sum(1)) > MIN_VIEW_COSINE * distance
        chosen = np.flatnonzero(is_in_image(pixels, depth, size) & facing)
        # The ray starts at the camera and must reach the face; what lies within 5 mm of the face does not hide it.
        rays = np.concatenate([np.broadcast_to(center, (len(chosen), 3)), -toward[chosen]], axis=1).astype(np.float32)
        hit_distances = [s.cast_rays(rays)["t_hit"].numpy() for s in (scene, occluder) if s is not None]
        reach = np.min(hit_distances, axis=0) * distance[chosen]
        count[candidates[chosen]] += reach > distance[chosen] - 0.005
    return count >= MIN_CAMERAS


def write_mesh(
    path: Path, vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], labels: Int[Array, "f"] | None = None
) -> None:
    """A binary PLY of the faces and the vertices they use; ``labels`` as their property ``label`` (uchar)."""
    import trimesh

    used, index = np.unique(faces, return_inverse=True)
    mesh = trimesh.Trimesh(vertices[used], index.reshape(-1, 3), process=False)
    if labels is not None:
        mesh.face_attributes["label"] = labels.astype(np.uint8)
    mesh.export(path)
