"""Writers of nerfstudio's transforms.json, and of its points as a PLY."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.posed_images import Posed

Array = np.ndarray


def write_nerfstudio_transforms(path: Path, posed: Posed, names: list[str], has_mask: list[bool]) -> None:
    """Write transforms.json: camera-to-world, camera axes x right, y up, z backwards (OpenGL); intrinsics per photo."""
    frames = []
    for index, center in enumerate(centers_world(posed.cam_from_world)):
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = posed.cam_from_world[index, :, :3].T @ np.diag([1.0, -1.0, -1.0])
        world_from_cam[:3, 3] = center
        fx, fy, cx, cy = posed.intrinsics[index].tolist()
        width, height = posed.sizes[index].tolist()
        frame = {"file_path": f"images/{names[index]}", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
        frame |= {"w": width, "h": height, "transform_matrix": world_from_cam.tolist()}
        if has_mask[index]:
            frame["mask_path"] = f"masks/{names[index]}.png"
        frames.append(frame)
    head = {"camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "ply_file_path": "sparse_pc.ply"}
    path.write_text(json.dumps({**head, "frames": frames}, indent=1), encoding="utf-8")


def write_point_cloud(path: Path, points_world: Float[Array, "p 3"], colors: UInt8[Array, "p 3"]) -> None:
    """Write a binary PLY of coloured points."""
    import trimesh

    trimesh.PointCloud(points_world, colors=colors).export(path)
