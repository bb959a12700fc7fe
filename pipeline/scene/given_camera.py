"""A camera that the user gives for a photo: its name there, its pose, and its intrinsics, checked where they are used.

Camera models are COLMAP's, by their names. Pixel (0, 0) is the corner of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.errors import QuoinError

Array = np.ndarray

# Limits of what is taken for a camera.
MAX_COORDINATE = 1e12  # of a camera's position, in any unit
MAX_EDGE_PX = 1_000_000
MIN_FOCAL_FACTOR, MAX_FOCAL_FACTOR = 1e-3, 1e4  # focal length per long edge
MAX_CENTER_FACTOR = 10.0  # distance of the principal point from the first pixel per long edge
MAX_DISTORTION = 1e6

# The size that a principal point tells: twice its place.
MAX_CENTER_SHIFT = 0.1  # of the photo's size: within it the principal point is that of the photo at hand
MAX_FACTOR_ERROR = 0.05  # of a whole factor, by which programs make photos smaller
MAX_FACTOR_DIFFERENCE = 0.01  # between the factors of width and height, where they are taken as they are


class ColmapModel(NamedTuple):
    """A camera model of COLMAP: its number in files, how many parameters it has, how many of them focal lengths."""

    number: int
    n_params: int
    n_focals: int


COLMAP_MODELS = {
    "SIMPLE_PINHOLE": ColmapModel(0, 3, 1),
    "PINHOLE": ColmapModel(1, 4, 2),
    "SIMPLE_RADIAL": ColmapModel(2, 4, 1),
    "RADIAL": ColmapModel(3, 5, 1),
    "OPENCV": ColmapModel(4, 8, 2),
    "OPENCV_FISHEYE": ColmapModel(5, 8, 2),
    "FULL_OPENCV": ColmapModel(6, 12, 2),
    "FOV": ColmapModel(7, 5, 2),
    "SIMPLE_RADIAL_FISHEYE": ColmapModel(8, 4, 1),
    "RADIAL_FISHEYE": ColmapModel(9, 5, 1),
    "THIN_PRISM_FISHEYE": ColmapModel(10, 12, 2),
    "RAD_TAN_THIN_PRISM_FISHEYE": ColmapModel(11, 16, 2),
    "SIMPLE_DIVISION": ColmapModel(12, 4, 1),
    "DIVISION": ColmapModel(13, 5, 2),
    "SIMPLE_FISHEYE": ColmapModel(14, 3, 1),
    "FISHEYE": ColmapModel(15, 4, 2),
    "EUCM": ColmapModel(16, 6, 2),
    "EQUIRECTANGULAR": ColmapModel(17, 2, 0),
}

# Fields of a transforms.json, of the whole file or of a frame, that tell intrinsics.
TRANSFORMS_KEYS = frozenset(
    "w h fl_x fl_y camera_angle_x cx cy k1 k2 k3 k4 p1 p2 camera_model is_fisheye".split()  # noqa: SIM905
)


class GivenIntrinsics(NamedTuple):
    """A COLMAP camera model with its parameters, for photos of ``width`` x ``height`` pixels."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class GivenCamera:
    """Pose and intrinsics of one photo as a file gives them; ``name`` is the photo's name in that file."""

    name: str
    cam_from_world: Float[Array, "3 4"]
    camera: GivenIntrinsics | Mapping[str, Any]  # or the fields of a transforms.json (TRANSFORMS_KEYS)
    source: str  # the file, for messages
    mask_path: str = ""  # as the file gives it; "" where it gives none

    @property
    def aspect(self) -> float | None:
        """Width over height of the photos that the intrinsics are for; None where the file does not tell it."""
        if isinstance(self.camera, GivenIntrinsics):
            return max(self.camera.width, 1) / max(self.camera.height, 1)
        for keys in (("w", "h"), ("cx", "cy")):
            if all(key in self.camera for key in keys):
                width, height = (_number(self.camera, key, f"{self.source}, {self.name}") for key in keys)
                return width / height if min(width, height) > 1e-3 else None
        return None

    def intrinsics(self, width: int, height: int) -> GivenIntrinsics:
        """The intrinsics, in pixels of the size that the file gives them for.

        ``width`` and ``height`` are those of the photo at hand, for a file that does not tell the size. Raises
        QuoinError for numbers that no camera has.
        """
        where = f"{self.source}, {self.name}"
        if isinstance(self.camera, GivenIntrinsics):
            return _checked(self.camera, where)
        return _checked(_from_fields(self.camera, (width, height), where), where)


def _checked(camera: GivenIntrinsics, where: str) -> GivenIntrinsics:
    model = COLMAP_MODELS.get(camera.model)
    if model is None or not model.n_focals:  # a panorama has none
        raise QuoinError(
            f"Camera model {camera.model} is not supported", where=where, hint="convert it to another, such as OPENCV"
        )
    if len(camera.params) != model.n_params:
        raise QuoinError(
            f"The camera has {len(camera.params)} parameters; {camera.model} has {model.n_params}",
            where=where,
            hint="repair the file",
        )
    long_edge = max(camera.width, camera.height)
    if min(camera.width, camera.height) < 1 or long_edge > MAX_EDGE_PX:
        raise QuoinError(
            f"The given camera is for {_short(camera.width)} x {_short(camera.height)} pixels, which no photo has",
            where=where,
            hint="repair the width and the height in the file",
        )
    focals, centers = camera.params[: model.n_focals], camera.params[model.n_focals : model.n_focals + 2]
    if not all(MIN_FOCAL_FACTOR * long_edge <= focal <= MAX_FOCAL_FACTOR * long_edge for focal in focals):
        raise QuoinError(
            f"A focal length of {focals[0]:.6g} pixels is none of a camera of {camera.width} x {camera.height} pixels",
            where=where,
            hint="repair the focal length in the file; it must be positive, and in pixels",
        )
    distortion = camera.params[model.n_focals + 2 :]
    is_plausible = all(abs(center) <= MAX_CENTER_FACTOR * long_edge for center in centers) and all(
        abs(value) <= MAX_DISTORTION for value in distortion
    )
    if not is_plausible:  # NaN, too
        raise QuoinError(
            "The principal point or the distortion of the given camera is none of a camera",
            where=where,
            hint="repair the file",
        )
    return camera


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**9 else "more than a billion"


# -- photos that EXIF turns --------------------------------------------------------------------------------------------

# Directions of the upright photo by those of the stored one, for the EXIF orientations that mirror nothing.
UPRIGHT_FROM_STORED = {
    3: np.array([[-1.0, 0.0], [0.0, -1.0]]),
    6: np.array([[0.0, -1.0], [1.0, 0.0]]),
    8: np.array([[0.0, 1.0], [-1.0, 0.0]]),
}
TANGENTIAL_MODELS = {"OPENCV": 6, "FULL_OPENCV": 6}  # where p1 and p2 stand among the parameters
UNTURNED_MODELS = {"THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"}  # have more that depends on the direction


def turned_upright(
    camera: GivenIntrinsics, cam_from_world: Float[Array, "3 4"], orientation: int
) -> tuple[GivenIntrinsics, Float[Array, "3 4"]] | None:
    """A camera and pose of the pixels as stored, for the photo that its EXIF ``orientation`` turns upright.

    None where they cannot be turned: a mirrored photo has no pose.
    """
    turn = UPRIGHT_FROM_STORED.get(orientation)
    if turn is None or camera.model in UNTURNED_MODELS or camera.model not in COLMAP_MODELS:
        return None
    n_focals = COLMAP_MODELS[camera.model].n_focals
    params = np.array(camera.params)
    corners = np.array([[0, 0], [camera.width, camera.height]]) @ turn.T
    params[n_focals : n_focals + 2] = turn @ params[n_focals : n_focals + 2] - corners.min(axis=0)
    params[:n_focals] = (np.abs(turn) @ params[:n_focals]) if n_focals == 2 else params[:n_focals]
    if (first := TANGENTIAL_MODELS.get(camera.model)) is not None:
        p1, p2 = params[first : first + 2]
        params[first + 1], params[first] = turn @ [p2, p1]  # (p2, p1) is a vector of the image plane
    width, height = np.ptp(corners, axis=0).astype(int).tolist()
    rotation = np.eye(3)
    rotation[:2, :2] = turn
    return GivenIntrinsics(camera.model, width, height, tuple(params.tolist())), rotation @ cam_from_world


# -- fields of a transforms.json ---------------------------------------------------------------------------------------


def _number(fields: Mapping[str, Any], key: str, where: str, default: float = 0.0) -> float:
    value = fields.get(key, default)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise QuoinError(f"{key} is not a number", where=where, hint="repair the file")
    return number


def _from_fields(fields: Mapping[str, Any], photo: tuple[int, int], where: str) -> GivenIntrinsics:
    def number(key: str, default: float = 0.0) -> float:
        return _number(fields, key, where, default)

    if "w" not in fields and "h" not in fields and "fl_x" in fields:
        photo = _size_by_center(fields, photo, where)
    width, height = round(number("w", photo[0])), round(number("h", photo[1]))
    if "fl_x" in fields:
        fx = number("fl_x")
    elif "camera_angle_x" in fields:
        angle = number("camera_angle_x")
        if not 0 < angle < math.pi:
            raise QuoinError("camera_angle_x is not between 0 and pi", where=where, hint="give it in radians")
        fx = width / 2 / math.tan(angle / 2)
    else:
        raise QuoinError("There is neither fl_x nor camera_angle_x", where=where, hint="add the focal length")
    k1, k2, k3, k4, p1, p2 = (number(key) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    kind, extra = str(fields.get("camera_model", "OPENCV")), tuple[float, ...]()
    if kind == "OPENCV_FISHEYE" or fields.get("is_fisheye") is True:
        model, extra = "OPENCV_FISHEYE", (k1, k2, k3, k4)
    elif kind in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE", "FULL_OPENCV"):
        model, extra = _opencv_model(k1, k2, p1, p2, k3)
    else:
        raise QuoinError(
            f"camera_model {kind[:40]!r} is not supported", where=where, hint="use OPENCV, PINHOLE or OPENCV_FISHEYE"
        )
    center = number("cx", width / 2), number("cy", height / 2)
    return GivenIntrinsics(model, width, height, (fx, number("fl_y", fx), *center, *extra))


def _opencv_model(k1: float, k2: float, p1: float, p2: float, k3: float) -> tuple[str, tuple[float, ...]]:
    if k3:
        return "FULL_OPENCV", (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
    return ("OPENCV", (k1, k2, p1, p2)) if any((k1, k2, p1, p2)) else ("PINHOLE", ())


def _size_by_center(fields: Mapping[str, Any], photo: tuple[int, int], where: str) -> tuple[int, int]:
    """The size that fl_x, cx and cy are for where w and h are missing: twice the principal point.

    The photo's own where that is near it: the principal point of a camera is seldom exactly in the middle. Of other
    sizes the whole factor that is near, for the same reason.
    """
    if "cx" not in fields or "cy" not in fields:
        return photo
    factors = [2 * _number(fields, key, where) / size for key, size in zip(("cx", "cy"), photo, strict=True)]
    if all(abs(factor - 1) <= MAX_CENTER_SHIFT for factor in factors):
        return photo
    factor = sum(factors) / 2
    whole = max(1, round(factor)) if factor >= 1 else 1 / max(1, round(1 / max(factor, 1e-6)))
    if whole != 1 and abs(factor / whole - 1) <= MAX_FACTOR_ERROR and _agree(factors, 2 * MAX_CENTER_SHIFT):
        return round(photo[0] * whole), round(photo[1] * whole)
    if _agree(factors, MAX_FACTOR_DIFFERENCE):
        return round(photo[0] * factor), round(photo[1] * factor)
    raise QuoinError(
        f"The file does not say for which size of the photos its numbers are: the principal point is at "
        f"{fields['cx']:.6g}, {fields['cy']:.6g}, the photo has {photo[0]} x {photo[1]} pixels",
        where=where,
        hint="add w and h to the file",
    )


def _agree(factors: list[float], tolerance: float) -> bool:
    return min(factors) > 0 and max(factors) / min(factors) - 1 <= tolerance
