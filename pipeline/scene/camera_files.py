"""Files of given cameras: transforms.json (nerfstudio, instant-ngp, NeRF) or a COLMAP model.

The one reader of ``--poses`` (the pose stage), of ``--cameras`` (evaluate) and of the masks that a transforms.json
names (ingest). Whatever a file holds ends in cameras or in a QuoinError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.colmap_model import MODEL_FILE_SUFFIXES, MODEL_TABLES, read_colmap_cameras
from quoin.pipeline.scene.given_camera import MAX_COORDINATE, TRANSFORMS_KEYS, GivenCamera
from quoin.pipeline.storage.run import Run

Array = np.ndarray

TRANSFORMS_JSON = "transforms.json"
MODEL_SUBFOLDERS = (".", "sparse/0", "sparse", "0")  # of the folder the user names, where a COLMAP model may be
MAX_TEXT_BYTES = 128 << 20  # of a transforms.json or a table: some 200,000 cameras
MAX_NAME_CHARS = 4096
MAX_AXIS_ERROR = 1e-2  # of the scalar products of a rotation's axes


def given_cameras_path(run: Run) -> Path | None:
    """The file or folder of cameras that the run was given (``pose.known_poses``); None where it was given none."""
    section = run.record.settings.get("pose")
    path = section.get("known_poses") if isinstance(section, Mapping) else None
    return Path(path) if path else None


def hash_camera_files(path: str | None) -> str:
    """Hash of the files of given cameras at ``path``, so that a changed file runs the stage again; "" for None."""
    if path is None:
        return ""
    files = [file for file in _candidate_files(Path(path)) if file.is_file()]
    return digest([[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def read_given_cameras(path: Path) -> list[GivenCamera]:
    """All cameras of a transforms.json, of a COLMAP model, or of a folder that holds one of them.

    Raises QuoinError where there is none, or where it cannot be read.
    """
    if not path.exists():
        raise QuoinError(
            "The given cameras do not exist", where=path, hint="name a COLMAP model folder or a transforms.json"
        )
    transforms = _find_transforms(path)
    return read_transforms(transforms) if transforms else read_colmap_cameras(find_colmap_model(_model_of_file(path)))


def read_given_masks(path: Path) -> dict[str, Path]:
    """The mask that a transforms.json at ``path`` names for each photo (``mask_path``), by the photo's name there.

    Photos that name themselves, for their transparency, are left out.
    """
    transforms = _find_transforms(path)
    if transforms is None:
        return {}
    masks = {}
    for camera in read_transforms(transforms):
        mask = (transforms.parent / camera.mask_path.replace("\\", "/")).resolve()
        if camera.mask_path and mask != (transforms.parent / camera.name).resolve():  # its own transparency
            masks[camera.name] = mask
    return masks


def _find_transforms(path: Path) -> Path | None:
    """The transforms.json at ``path``: itself, or in that folder; None where there is none."""
    path = _model_of_file(path)
    if path.is_dir():
        path = path / TRANSFORMS_JSON
        return path if path.is_file() else None
    return path if path.exists() else None


def find_colmap_model(path: Path) -> Path:
    """The folder of the COLMAP model at ``path``: itself, or its sparse/0, sparse or 0; QuoinError where none is."""
    for folder in (path / subfolder for subfolder in MODEL_SUBFOLDERS):
        if any((folder / f"{MODEL_TABLES[0]}{suffix}").is_file() for suffix in MODEL_FILE_SUFFIXES):
            return folder
    raise QuoinError(
        "There are no cameras here: neither a COLMAP model nor a transforms.json",
        where=path,
        hint="give a folder with cameras.bin, images.bin and points3D.bin (or .txt), or a transforms.json",
    )


def _model_of_file(path: Path) -> Path:
    """The folder of a COLMAP model for one of its files; any other path as it is."""
    is_table = path.stem in MODEL_TABLES and path.suffix in MODEL_FILE_SUFFIXES
    return path.parent if is_table and path.is_file() else path


def _candidate_files(path: Path) -> list[Path]:
    """Paths of all files that given cameras may be read from."""
    path = _model_of_file(path)
    if path.is_file():
        return [path]
    names = [
        f"{subfolder}/{table}{suffix}"
        for subfolder in MODEL_SUBFOLDERS
        for table in MODEL_TABLES
        for suffix in MODEL_FILE_SUFFIXES
    ]
    return [path / name for name in (TRANSFORMS_JSON, *names)]


def read_text(path: Path) -> str:
    """The text of a file of cameras: UTF-8, UTF-16 or UTF-32, with a byte order mark or without, else Windows' own."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES or not path.is_file():
            raise QuoinError(
                f"This is no file of cameras: it has {path.stat().st_size >> 20} MB, or no end",
                where=path,
                hint="name a transforms.json or a COLMAP model",
            )
        data = path.read_bytes()
    except OSError as error:
        raise QuoinError(f"Cannot read the given cameras: {error}", where=path, hint="name a readable file") from None
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def read_transforms(path: Path) -> list[GivenCamera]:
    """Cameras of a transforms.json; camera axes there are OpenGL's (y up, looking along -z), the world is kept.

    Raises QuoinError with the place. Intrinsics are looked at when they are asked for.
    """
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise QuoinError(f"The given cameras are not valid JSON: {what}", where=path, hint="repair the file") from None
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        raise QuoinError("The given file has no list of frames", where=path, hint="give a transforms.json with frames")
    common = _fields(data)
    names, masks = [], []
    for index, frame in enumerate(frames):
        name = frame.get("file_path") if isinstance(frame, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or "\0" in name:
            raise QuoinError(
                f"Frame {index} has no file_path, or none that a file can have", where=path, hint="repair the file"
            )
        mask = frame.get("mask_path", "")
        names.append(name)
        masks.append(mask if isinstance(mask, str) and len(mask) <= MAX_NAME_CHARS and "\0" not in mask else "")
    poses = _poses(frames, path)
    return [
        GivenCamera(name, pose, {**common, **_fields(frame)}, str(path), mask)
        for name, pose, frame, mask in zip(names, poses, frames, masks, strict=True)
    ]


def _fields(frame: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that tell intrinsics."""
    return {key: frame[key] for key in TRANSFORMS_KEYS if key in frame}


def _poses(frames: list[dict[str, Any]], path: Path) -> Float[Array, "n 3 4"]:
    """cam_from_world of the transform_matrix of all frames, each a rotation, a scale and a translation."""

    def refuse(row: int, what: str) -> QuoinError:
        where = f"{path}, frame {frames[row]['file_path']}"
        return QuoinError(f"transform_matrix is {what}", where=where, hint="repair the file")

    world_from_gl = np.empty((len(frames), 3, 4))
    for row, frame in enumerate(frames):
        try:
            matrix = np.array(frame.get("transform_matrix"), np.float64)
        except (TypeError, ValueError, OverflowError):
            matrix = np.zeros(0)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise refuse(row, "not a 4 x 4 matrix of numbers")
        world_from_gl[row] = matrix[:3]
    is_number = (np.abs(world_from_gl) <= MAX_COORDINATE).all(axis=(1, 2))  # NaN is none
    if not is_number.all():
        raise refuse(int(np.argmin(is_number)), "not a 4 x 4 matrix of numbers, or of too large ones")
    axes, centers = world_from_gl[:, :, :3], world_from_gl[:, :, 3]
    axes = axes / np.maximum(np.cbrt(np.abs(np.linalg.det(axes))), 1e-12)[:, None, None]
    errors = np.abs(axes @ axes.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    is_rotation = (errors <= MAX_AXIS_ERROR) & (np.linalg.det(axes) > 0)
    if not is_rotation.all():
        raise refuse(int(np.argmin(is_rotation)), "no rotation and translation")
    u, _, vt = np.linalg.svd(axes)
    rotations = ((u @ vt) * [1.0, -1.0, -1.0]).transpose(0, 2, 1)  # y down, looking along z
    return np.concatenate([rotations, -(rotations @ centers[:, :, None])], axis=2)
