"""Reference cameras: whatever --poses reads, Strecha's .camera files and CSV tables.

Alignment of a run to them, by the camera centres of both, and the camera errors that remain.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world, rotation_angles_deg
from quoin.pipeline.geometry.similarity import Similarity, fit_similarity_robust
from quoin.pipeline.scene.camera_files import read_given_cameras, read_text
from quoin.pipeline.scene.given_camera import MAX_COORDINATE
from quoin.pipeline.scene.photo_names import fit_names
from quoin.tools.evaluate.config import PoseErrors

Array = np.ndarray

REFERENCE_CAMERA_FORMATS = (
    "a transforms.json, a COLMAP model, a folder with one of them, a folder of .camera files, or a CSV of name,x,y,z"
)

MIN_WIDTH_RATIO = 1e-3  # of the cameras' extent: nearer to a line, the rotation about it is not determined


@dataclass(frozen=True)
class ReferenceCameras:
    """Camera centres by photo name, and cam_from_world rotations (x right, y down, z forward) if the file has any."""

    names: list[str]
    centers: Float[Array, "n 3"]
    rotations: Float[Array, "n 3 3"] | None


def read_cameras(path: Path) -> ReferenceCameras:
    """Reference cameras of a file or folder (REFERENCE_CAMERA_FORMATS); QuoinError where it cannot be read.

    What ``--poses`` takes is read as there.
    """
    if not path.exists():
        raise QuoinError("The reference cameras do not exist", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}")
    try:
        if path.suffix.lower() == ".csv" and path.is_file():
            cameras = _read_table(path)
        elif path.is_dir() and any(path.glob("*.camera")):
            cameras = _read_strecha(path)
        else:
            given = read_given_cameras(path)
            poses = np.array([camera.cam_from_world for camera in given])
            cameras = ReferenceCameras([camera.name for camera in given], centers_world(poses), poses[:, :, :3])
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise QuoinError(
            f"The reference cameras cannot be read: {error}", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}"
        ) from error
    if not cameras.names or not (np.abs(cameras.centers) <= MAX_COORDINATE).all():
        raise QuoinError(
            "The reference cameras are empty or not finite", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}"
        )
    return cameras


def _read_strecha(path: Path) -> ReferenceCameras:
    """Strecha et al. 2008: K (3 rows), distortion (1), R camera-to-world (3), centre, image size."""
    files = sorted(path.glob("*.camera"))
    numbers = [np.array(read_text(file).split(), np.float64)[:24] for file in files]
    values = np.array(numbers).reshape(len(files), 24)
    rotations = values[:, 12:21].reshape(-1, 3, 3).transpose(0, 2, 1)
    products = np.clip(rotations, -2, 2) @ np.clip(rotations, -2, 2).transpose(0, 2, 1)
    if not np.allclose(products, np.eye(3), atol=1e-2):
        raise ValueError("a rotation is none")
    return ReferenceCameras([file.name.removesuffix(".camera") for file in files], values[:, 21:24], rotations)


def _read_table(path: Path) -> ReferenceCameras:
    """A CSV with columns name, x, y, z in any case and order, separated by commas, semicolons or tabs.

    Where semicolons or tabs separate, numbers may have decimal commas, as spreadsheets of many countries write them.
    """
    text = read_text(path)
    header = text[:4096].partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [column.strip().casefold() for column in next(rows, [])]
    places = [columns.index(column) for column in ("name", "x", "y", "z")]
    names, centers = [], []
    for row in rows:
        if any(cell.strip() for cell in row):
            if len(row) <= max(places):
                raise ValueError(f"line {rows.line_num} has {len(row)} columns")
            name, *position = (row[place] for place in places)
            names.append(name)
            centers.append([float(cell if delimiter == "," else cell.replace(",", ".")) for cell in position])
    return ReferenceCameras(names, np.array(centers).reshape(-1, 3), None)


def match_camera_names(
    names: list[str], reference: list[str], unused_names: Sequence[str] = ()
) -> tuple[Int[Array, "m"], Int[Array, "m"]]:
    """Indices into both lists of the photos that reference names fit (``fit_names``).

    A name that fits several photos, or a photo that several names fit, matches nothing.
    """
    photo_of = {
        row: fitting[0] for row, fitting in enumerate(fit_names(reference, names, unused_names)) if len(fitting) == 1
    }
    count = Counter(photo_of.values())
    matches = sorted((photo, row) for row, photo in photo_of.items() if count[photo] == 1)
    return np.array([i for i, _ in matches], np.int64), np.array([j for _, j in matches], np.int64)


def align_to_reference(
    names: list[str],
    cam_from_world: Float[Array, "n 3 4"],
    reference: ReferenceCameras,
    *,
    unused_names: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Similarity, PoseErrors, list[dict[str, float | str | None]]]:
    """truth_from_world fitted robustly to the centres of cameras of equal name, the errors, and a row per such camera.

    The errors are over all matched cameras, including the outliers of the fit. ``unused_names`` are those of photos
    without a pose: a camera that fits one of them better fits no other.
    """
    ours, theirs = match_camera_names(names, reference.names, unused_names)
    if len(ours) < 3:
        raise QuoinError(
            f"Only {len(ours)} of the {len(names)} posed photos are among the {len(reference.names)} reference cameras",
            where=f"{names[0] if names else 'no photo'} / {reference.names[0]}",
            hint="give at least three reference cameras named like the photos",
        )
    centers, truth = centers_world(cam_from_world[ours]), reference.centers[theirs]
    length, width, _ = np.linalg.svd(truth - truth.mean(axis=0), compute_uv=False)
    if width < MIN_WIDTH_RATIO * length:
        raise QuoinError(
            "The matched reference cameras stand in a line, so the rotation about it is unknown",
            hint="give reference cameras that do not stand in a line",
        )
    truth_from_world, inliers = fit_similarity_robust(
        centers, truth, seed=seed, provenance="robust fit to reference camera centres"
    )
    errors = np.linalg.norm(truth_from_world.apply(centers) - truth, axis=1)
    rotation_errors_deg = None
    if reference.rotations is not None:
        cam_from_truth = truth_from_world.apply_to_poses(cam_from_world[ours])[:, :, :3]
        rotation_errors_deg = rotation_angles_deg(cam_from_truth, reference.rotations[theirs])
    spread = max(float(np.linalg.norm(truth - center, axis=1).max()) for center in truth)
    rows: list[dict[str, float | str | None]] = [
        {
            "name": names[i],
            "center_error_m": float(errors[row]),
            "rotation_error_deg": None if rotation_errors_deg is None else float(rotation_errors_deg[row]),
            "inlier": bool(inliers[row]),
        }
        for row, i in enumerate(ours)
    ]
    return truth_from_world, _summarize(len(reference.names), errors, rotation_errors_deg, inliers, spread), rows


def _summarize(
    n_reference: int, errors: Array, rotation_errors_deg: Array | None, inliers: Array, spread: float
) -> PoseErrors:
    median, worst = float(np.median(errors)), float(errors.max())
    return PoseErrors(
        n_reference=n_reference,
        n_matched=len(errors),
        n_inliers=int(inliers.sum()),
        spread_m=spread,
        center_median_m=median,
        center_max_m=worst,
        center_median_percent=100 * median / spread,
        center_max_percent=100 * worst / spread,
        rotation_median_deg=None if rotation_errors_deg is None else float(np.median(rotation_errors_deg)),
        rotation_max_deg=None if rotation_errors_deg is None else float(rotation_errors_deg.max()),
    )
