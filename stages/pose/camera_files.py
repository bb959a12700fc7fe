"""Files of known poses: transforms.json (nerfstudio, instant-ngp, NeRF) or a COLMAP model; photos matched by name."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.config import PoseConfig

Array = np.ndarray

TRANSFORMS_JSON = "transforms.json"
MODEL_SUBFOLDERS = (".", "sparse/0", "sparse", "0")  # of the folder the user names, where a COLMAP model may be
MODEL_FILE_STEMS = ("cameras", "images", "points3D", "rigs", "frames")
MODEL_FILE_SUFFIXES = (".bin", ".txt")


@dataclass(frozen=True)
class KnownPose:
    """Pose and camera of one photo, read from a file; ``name`` is the photo's name in that file."""

    name: str
    cam_from_world: Float[Array, "3 4"]
    camera: Camera


def pose_cache_inputs(run: Run, config: PoseConfig) -> str:
    """Hash of what the pose stage reads outside the run: the files of known poses."""
    del run
    return hash_camera_files(config.known_poses)


def hash_camera_files(path: str | None) -> str:
    """Hash of the files of known poses at ``path``, so that a changed file runs the stage again; "" for None."""
    if path is None:
        return ""
    files = [file for file in candidate_files(Path(path)) if file.is_file()]
    return digest([[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def candidate_files(path: Path) -> list[Path]:
    """Paths of all files that known poses may be read from: a transforms.json, or those of a COLMAP model."""
    if path.is_file():
        return [path]
    names = [
        f"{subfolder}/{table}{suffix}"
        for subfolder in MODEL_SUBFOLDERS
        for table in MODEL_FILE_STEMS
        for suffix in MODEL_FILE_SUFFIXES
    ]
    return [path / name for name in (TRANSFORMS_JSON, *names)]


def find_colmap_model(path: Path) -> Path:
    """The folder of the COLMAP model at ``path``: itself, or its sparse/0, sparse or 0; QuoinError where none is."""
    for folder in (path / subfolder for subfolder in MODEL_SUBFOLDERS):
        if any((folder / f"cameras{extension}").is_file() for extension in MODEL_FILE_SUFFIXES):
            missing = [
                kind
                for kind in ("images", "points3D")
                if not any((folder / f"{kind}{extension}").is_file() for extension in MODEL_FILE_SUFFIXES)
            ]
            if missing:
                raise QuoinError(
                    f"The COLMAP model lacks {' and '.join(missing)}",
                    where=folder,
                    hint="give the folder of a whole model",
                )
            return folder
    raise QuoinError(
        "There are no cameras here: neither a COLMAP model nor a transforms.json",
        where=path,
        hint="give a folder with cameras.bin, images.bin and points3D.bin (or .txt), or a transforms.json",
    )


def match_names(names: list[str], photos: list[str], unused_names: Sequence[str] = ()) -> dict[int, int]:
    """Index of the photo for each given name that has one: the same path from its end on, with or without an extension.

    A name that fits one of ``unused_names``, photos that are left out, better than any of ``photos`` has none.
    Raises QuoinError where a name fits several photos, or two names the same photo.
    """
    photos_by_suffix: dict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        for suffix in _path_suffixes(photo):
            photos_by_suffix[suffix].append(index)
    unused_suffixes = {suffix for other in unused_names for suffix in _path_suffixes(other)}
    matched: dict[int, int] = {}
    name_of_photo: dict[int, str] = {}
    for row, name in enumerate(names):
        best = next(
            (suffix for suffix in _path_suffixes(name) if suffix in photos_by_suffix or suffix in unused_suffixes), ""
        )
        candidates = photos_by_suffix.get(best, [])
        if len(candidates) > 1:
            raise QuoinError(
                f"A given name fits {len(candidates)} photos, {photos[candidates[0]]!r} and "
                f"{photos[candidates[1]]!r} among them",
                where=name,
                hint="give names with their folders",
            )
        if candidates:
            if candidates[0] in name_of_photo:
                raise QuoinError(
                    f"Two given names, {name_of_photo[candidates[0]]!r} and {name!r}, fit the same photo",
                    where=photos[candidates[0]],
                    hint="give each photo once",
                )
            name_of_photo[candidates[0]] = name
            matched[row] = candidates[0]
    return matched


def _path_suffixes(name: str) -> list[str]:
    """Ends of a path, with and without its extension, the longest first: a/b/c.jpg, a/b/c, b/c.jpg, b/c, c.jpg, c."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in (".", "..", "/")]
    suffixes = []
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        suffixes += [tail, str(PurePosixPath(tail).with_suffix(""))] if PurePosixPath(tail).suffix else [tail]
    return suffixes


def scale_to_photo(camera: Camera, name: str, width: int, height: int) -> Camera:
    """The camera in pixels of the photo at hand, which may be a resized copy; QuoinError where its shape differs."""
    if (camera.width, camera.height) == (width, height):
        return camera
    sx, sy = width / camera.width, height / camera.height
    if abs(sx / sy - 1) > 0.01:
        is_turned = abs(width / camera.height / (height / camera.width) - 1) <= 0.01
        raise QuoinError(
            f"The given camera is for {camera.width} x {camera.height} pixels, the photo has {width} x {height}"
            + (" (turned upright by its EXIF)" if is_turned else ""),
            where=name,
            hint="give cameras of the upright photos" if is_turned else "give cameras of these photos",
        )
    return replace(camera.rescaled(width, height), prior_focal=True)


def read_transforms(path: Path, sizes: dict[str, tuple[int, int]], unused_names: Sequence[str] = ()) -> list[KnownPose]:
    """Cameras of a transforms.json; camera axes there are OpenGL's (y up, looking along -z), the world is kept.

    ``sizes`` (width, height) by photo name stand in where the file does not say them. Raises QuoinError with the place.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise QuoinError(f"Cannot read the given cameras: {error}", where=path, hint="name a readable file") from None
    except ValueError as error:
        raise QuoinError(f"The given cameras are not valid JSON: {error}", where=path, hint="repair the file") from None
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        raise QuoinError("The given file has no list of frames", where=path, hint="give a transforms.json with frames")
    names: list[str] = []
    for index, frame in enumerate(frames):
        name = frame.get("file_path") if isinstance(frame, dict) else None
        if not isinstance(name, str) or not name:
            raise QuoinError(f"Frame {index} has no file_path", where=path, hint="repair the file")
        names.append(name)
    photos = list(sizes)
    size_of = {row: sizes[photos[photo]] for row, photo in match_names(names, photos, unused_names).items()}
    known_poses = []
    for row, frame in enumerate(frames):
        if row in size_of:
            where = f"{path}, frame {names[row]}"
            fields = {**{k: v for k, v in data.items() if k != "frames"}, **frame}
            pose = _pose(frame.get("transform_matrix"), where)
            known_poses.append(KnownPose(names[row], pose, _camera(fields, size_of[row], where)))
    return known_poses


def _pose(matrix: Any, where: str) -> Float[Array, "3 4"]:
    try:
        world_from_gl = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        world_from_gl = np.zeros(0)
    if world_from_gl.shape not in ((4, 4), (3, 4)) or not np.isfinite(world_from_gl).all():
        raise QuoinError("transform_matrix is not a 4 x 4 matrix of numbers", where=where, hint="repair the file")
    axes = world_from_gl[:3, :3] / max(float(np.cbrt(abs(np.linalg.det(world_from_gl[:3, :3])))), 1e-12)
    if np.abs(axes @ axes.T - np.eye(3)).max() > 1e-2 or np.linalg.det(axes) < 0:
        raise QuoinError("transform_matrix is no rotation and translation", where=where, hint="repair the file")
    u, _, vt = np.linalg.svd(axes)
    rotation = ((u @ vt) * [1.0, -1.0, -1.0]).T  # y down, looking along z
    return np.concatenate([rotation, -(rotation @ world_from_gl[:3, 3])[:, None]], axis=1)


def _camera(fields: dict[str, Any], size: tuple[int, int], where: str) -> Camera:
    def number(key: str, default: float | None = None) -> float:
        value = fields.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise QuoinError(f"{key} is not a number", where=where, hint="repair the file")
        return float(value)

    width, height = number("w", size[0]), number("h", size[1])
    if width < 1 or height < 1:
        raise QuoinError("w and h must be positive", where=where, hint="repair the file")
    if "fl_x" in fields:
        fx = number("fl_x")
    elif "camera_angle_x" in fields:
        fx = width / 2 / math.tan(number("camera_angle_x") / 2)
    else:
        raise QuoinError("There is neither fl_x nor camera_angle_x", where=where, hint="add the focal length")
    fy = number("fl_y", fx)
    if fx <= 0 or fy <= 0:
        raise QuoinError("The focal length must be positive", where=where, hint="repair the file")
    cx, cy = number("cx", width / 2), number("cy", height / 2)
    k1, k2, k3, k4, p1, p2 = (number(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    extra: tuple[float, ...]
    kind = str(fields.get("camera_model", "OPENCV"))
    if kind == "OPENCV_FISHEYE" or fields.get("is_fisheye") is True:
        model, extra = "OPENCV_FISHEYE", (k1, k2, k3, k4)
    elif kind in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE", "FULL_OPENCV"):
        model, extra = ("FULL_OPENCV", (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)) if k3 else ("OPENCV", (k1, k2, p1, p2))
        if not any(extra):
            model, extra = "PINHOLE", ()
    else:
        raise QuoinError(
            f"camera_model {kind!r} is not supported", where=where, hint="use OPENCV, PINHOLE or OPENCV_FISHEYE"
        )
    return Camera(model, round(width), round(height), (fx, fy, cx, cy, *extra), True)
