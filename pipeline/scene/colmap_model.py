"""Cameras of a COLMAP model, text or binary: the names, poses and intrinsics of its photos.

Read here, and not by COLMAP, because names may hold blanks, and because a file that is empty, cut off or lies about
its counts has to end in a sentence: COLMAP takes all memory for it, or ends the process. Points are not read.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.given_camera import COLMAP_MODELS, MAX_COORDINATE, GivenCamera, GivenIntrinsics

Array = np.ndarray

MODEL_FILE_SUFFIXES = (".bin", ".txt")
MODEL_TABLES = ("cameras", "images", "points3D")
MODEL_NAMES = {model.number: name for name, model in COLMAP_MODELS.items()}

MAX_LINE_CHARS = 1 << 26  # of a text file; a line of images.txt holds all keypoints of a photo
MAX_NAME_BYTES = 4096
COUNT = struct.Struct("<Q")
CAMERA_ROW = struct.Struct("<IiQQ")  # id, model, width, height; parameters follow
IMAGE_ROW = struct.Struct("<I7dI")  # id, rotation w x y z, translation, camera; name, number of points, points follow
POINT_BYTES = 24  # of a keypoint in images.bin: x, y, id of its point
MIN_TABLE_BYTES = {"cameras": CAMERA_ROW.size, "images": IMAGE_ROW.size + 1 + COUNT.size, "points3D": 51}  # a row


def read_colmap_cameras(folder: Path) -> list[GivenCamera]:
    """The cameras of all photos of the model in ``folder``, binary where it is whole, else text.

    Raises QuoinError with the file and what is wrong with it.
    """
    missing = {
        suffix: [table for table in MODEL_TABLES if not (folder / f"{table}{suffix}").is_file()]
        for suffix in MODEL_FILE_SUFFIXES
    }
    suffix = min(MODEL_FILE_SUFFIXES, key=lambda suffix: len(missing[suffix]))
    if missing[suffix]:
        raise QuoinError(
            f"The COLMAP model lacks {' and '.join(missing[suffix])}",
            where=folder,
            hint="give the folder of a whole model",
        )
    cameras_file, images_file, points_file = (folder / f"{table}{suffix}" for table in MODEL_TABLES)
    if suffix == ".bin":
        with _open_table(points_file):  # what is cut off there is most likely cut off elsewhere, too
            pass
        cameras, images = _read_binary_cameras(cameras_file), _read_binary_images(images_file)
    else:
        cameras, images = _read_text_cameras(cameras_file), _read_text_images(images_file)
    if not images:
        raise QuoinError("The COLMAP model has no photos", where=images_file, hint="give a model with poses")
    names, camera_ids, numbers = zip(*images, strict=True)
    unknown = [row for row, camera_id in enumerate(camera_ids) if camera_id not in cameras]
    if unknown:
        _refuse(images_file, f"{names[unknown[0]]!r} has camera {camera_ids[unknown[0]]}, which the model lacks")
    poses = _poses(np.array(numbers), names, images_file)
    return [
        GivenCamera(name, pose, cameras[camera_id], str(images_file))
        for name, pose, camera_id in zip(names, poses, camera_ids, strict=True)
    ]


ImageRow = tuple[str, int, tuple[float, ...]]  # name, camera id, rotation w x y z and translation


def _refuse(path: Path, what: str) -> NoReturn:
    raise QuoinError(
        f"This file of the COLMAP model is damaged: {what}", where=path, hint="copy or export the model again"
    )


def _poses(numbers: Float[Array, "n 7"], names: tuple[str, ...], path: Path) -> Float[Array, "n 3 4"]:
    """cam_from_world of rotations w, x, y, z and translations."""
    norms = np.linalg.norm(np.clip(numbers[:, :4], -MAX_COORDINATE, MAX_COORDINATE), axis=1)
    is_wrong = ~((norms > 1e-6) & (np.abs(numbers) <= MAX_COORDINATE).all(axis=1))  # NaN, too
    if is_wrong.any():
        _refuse(path, f"the pose of {names[int(np.argmax(is_wrong))]!r} is none")
    w, x, y, z = (numbers[:, :4] / norms[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotations = np.array(rows).transpose(2, 0, 1)
    return np.concatenate([rotations, numbers[:, 4:, None]], axis=2)


# -- binary ------------------------------------------------------------------------------------------------------------


@contextmanager
def _open_table(path: Path) -> Iterator[tuple[mmap.mmap, int]]:
    """The bytes of a binary table and its number of rows, which fit into the file."""
    try:
        with path.open("rb") as handle:
            if path.stat().st_size < COUNT.size:
                _refuse(path, f"it has {path.stat().st_size} bytes")
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                (count,) = COUNT.unpack_from(data)
                if count * MIN_TABLE_BYTES[path.stem] > len(data) - COUNT.size:
                    _refuse(path, f"it ends before the {count} rows that it announces")
                yield data, count
    except OSError as error:
        raise QuoinError(f"Cannot read the given cameras: {error}", where=path, hint="name a readable file") from None
    except struct.error:
        _refuse(path, "it ends too early")


def _read_binary_cameras(path: Path) -> dict[int, GivenIntrinsics]:
    cameras = {}
    with _open_table(path) as (data, count):
        at = COUNT.size
        for _ in range(count):
            camera_id, number, width, height = CAMERA_ROW.unpack_from(data, at)
            if number not in MODEL_NAMES:
                _refuse(path, f"camera {camera_id} is of model {number}, which there is not")
            name = MODEL_NAMES[number]
            params = struct.unpack_from(f"<{COLMAP_MODELS[name].n_params}d", data, at + CAMERA_ROW.size)
            cameras[camera_id] = GivenIntrinsics(name, width, height, params)
            at += CAMERA_ROW.size + 8 * len(params)
    return cameras


def _read_binary_images(path: Path) -> list[ImageRow]:
    images: list[ImageRow] = []
    with _open_table(path) as (data, count):
        at = COUNT.size
        for _ in range(count):
            _, *numbers, camera_id = IMAGE_ROW.unpack_from(data, at)
            at += IMAGE_ROW.size
            end = data.find(b"\0", at, at + MAX_NAME_BYTES)
            if end < 0:
                _refuse(path, f"the name of photo {len(images) + 1} of {count} does not end")
            name = _decode(data[at:end])
            (n_points,) = COUNT.unpack_from(data, end + 1)
            at = end + 1 + COUNT.size + POINT_BYTES * n_points
            if at > len(data):
                _refuse(path, f"it ends before the {n_points} points of {name!r} that it announces")
            images.append((name, camera_id, tuple(numbers)))
    return images


# -- text --------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of all lines but comments, without the blanks around them."""
    try:
        with path.open("rb") as handle:
            encoding = json.detect_encoding(handle.read(4))
        with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as text:
            number = 0
            while line := text.readline(MAX_LINE_CHARS):
                number += 1
                if len(line) == MAX_LINE_CHARS:
                    _refuse(path, f"line {number} does not end")
                if not line.startswith("#"):
                    yield number, line.strip()
    except OSError as error:
        raise QuoinError(f"Cannot read the given cameras: {error}", where=path, hint="name a readable file") from None
    except UnicodeError:
        _refuse(path, "it is no text")


def _read_text_cameras(path: Path) -> dict[int, GivenIntrinsics]:
    """Rows of CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]."""
    cameras = {}
    for number, line in _lines(path):
        if not line:
            continue
        try:
            camera_id, model, width, height, *params = line.split()
            size = int(width), int(height)
            cameras[int(camera_id)] = GivenIntrinsics(model, *size, tuple(float(value) for value in params))
        except ValueError:
            _refuse(path, f"line {number} is no camera: {line[:60]!r}")
    return cameras


def _read_text_images(path: Path) -> list[ImageRow]:
    """Two lines a photo: IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; and its POINTS2D[], which may be none.

    A name ends with its line and may hold blanks.
    """
    images: list[ImageRow] = []
    lines = _lines(path)
    for number, line in lines:
        if not line:
            continue
        try:
            _, *numbers, camera_id, name = line.split(None, 9)
            images.append((_decode(name), int(camera_id), _seven([float(value) for value in numbers])))
        except ValueError:
            _refuse(path, f"line {number} is no photo with its pose: {line[:60]!r}")
        points_number, points = next(lines, (number + 1, ""))
        last = points.rsplit(None, 1)[-1:]
        if last and not last[0].lstrip("-").isdecimal():  # the id of a point
            _refuse(path, f"line {points_number} does not hold the points of {name!r}; without any it must be empty")
    return images


def _seven(numbers: list[float]) -> tuple[float, ...]:
    if len(numbers) != 7:
        raise ValueError(numbers)
    return tuple(numbers)


def _decode(name: bytes | str) -> str:
    """A photo's name: UTF-8, or what Windows writes."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")
