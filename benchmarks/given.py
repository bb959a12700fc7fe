"""Cameras that come with photo sets, as a transforms.json that ``--poses`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

Array = np.ndarray


def split_projection(projection: Float[Array, "3 4"]) -> tuple[Float[Array, "3 3"], Float[Array, "3 4"]]:
    """K and cam_from_world of P = s K [R | t], s any number but 0 (RQ decomposition; K upper triangular, K₂₂ = 1)."""
    from scipy.linalg import rq

    matrix = projection * np.sign(np.linalg.det(projection[:, :3]))
    camera, rotation = rq(matrix[:, :3])
    signs = np.diag(np.sign(np.diag(camera)))
    camera, rotation = camera @ signs, signs @ rotation
    return camera / camera[2, 2], np.column_stack([rotation, np.linalg.solve(camera, matrix[:, 3])])


def write_pose_transforms(
    path: Path, names: Sequence[str], cameras: Float[Array, "n 3 3"], cam_from_world: Float[Array, "n 3 4"]
) -> Path:
    """Cameras K (their skew left out) and poses by photo name; axes there are OpenGL's: y up, looking along -z."""
    frames = []
    for name, camera, pose in zip(names, cameras, cam_from_world, strict=True):
        world_from_gl = np.eye(4)
        world_from_gl[:3, :3] = pose[:, :3].T * [1.0, -1.0, -1.0]
        world_from_gl[:3, 3] = -pose[:, :3].T @ pose[:, 3]
        lens = {"fl_x": camera[0, 0], "fl_y": camera[1, 1], "cx": camera[0, 2], "cy": camera[1, 2]}
        frames.append({"file_path": name, **lens, "transform_matrix": world_from_gl.tolist()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"frames": frames}, indent=1), encoding="utf-8")
    return path


def dtu_transforms(folder: Path, out: Path) -> Path:
    """cameras_sphere.npz of IDR and NeuS: world_mat is K [R | t], scale_mat takes the unit sphere to its world.

    The world that is written is that of the unit sphere.
    """
    arrays = np.load(folder / "cameras_sphere.npz")
    names = sorted(path.name for path in (folder / "image").glob("*.jpg"))
    parts = [
        split_projection((arrays[f"world_mat_{i}"] @ arrays[f"scale_mat_{i}"])[:3].astype(np.float64))
        for i in (int(Path(name).stem) for name in names)
    ]
    cameras, poses = (np.array(part) for part in zip(*parts, strict=True))
    return write_pose_transforms(out, names, cameras, poses)


def strecha_transforms(folder: Path, out: Path) -> Path:
    """``gt_dense_cameras/*.camera`` of Strecha et al. 2008."""
    from benchmarks.poses import read_strecha_cameras

    poses = read_strecha_cameras(folder / "gt_dense_cameras")
    cameras = [np.loadtxt(folder / "gt_dense_cameras" / f"{name}.camera", max_rows=3) for name in poses]
    return write_pose_transforms(out, list(poses), np.array(cameras), np.array(list(poses.values())))


def existing_transforms(folder: Path, out: Path) -> Path:
    """A transforms.json that lies in the set."""
    return folder / "transforms.json"
