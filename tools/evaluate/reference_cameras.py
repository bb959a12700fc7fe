"""Reference cameras: readers of transforms.json, COLMAP models, Strecha's .camera files and CSV tables.

Alignment of a run to them, by the camera centres of both, and the camera errors that remain.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world, rotation_angles_deg
from quoin.pipeline.geometry.similarity import Similarity, fit_similarity_robust
from quoin.tools.evaluate.config import PoseErrors

Array = np.ndarray

REFERENCE_CAMERA_FORMATS = (
    "a transforms.json, a COLMAP model folder, a folder of .camera files, or a CSV with columns name,x,y,z"
)

MIN_WIDTH_RATIO = 1e-3  # of the cameras' extent: nearer to a line, the rotation about it is not determined


@dataclass(frozen=True)
class ReferenceCameras:
    """Camera centres by photo name, and cam_from_world rotations (x right, y down, z forward) if the file has any."""

    names: list[str]
    centers: Float[Array, "n 3"]
    rotations: Float[Array, "n 3 3"] | None


def read_cameras(path: Path) -> ReferenceCameras:
    """Reference cameras of a file or folder (REFERENCE_CAMERA_FORMATS); QuoinError where it cannot be read."""
    if not path.exists():
        raise QuoinError("The reference cameras do not exist", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}")
    reader = _select_reader(path)
    if reader is None:
        raise QuoinError(
            "This is no known format of reference cameras", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}"
        )
    try:
        cameras = reader(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise QuoinError(
            f"The reference cameras cannot be read: {error}", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}"
        ) from error
    if not cameras.names or not np.isfinite(cameras.centers).all():
        raise QuoinError(
            "The reference cameras are empty or not finite", where=path, hint=f"give {REFERENCE_CAMERA_FORMATS}"
        )
    return cameras


def _select_reader(path: Path) -> Callable[[Path], ReferenceCameras] | None:
    if path.is_dir():
        if any((path / f"images{end}").exists() for end in (".bin", ".txt")):
            return _read_colmap
        return _read_strecha if any(path.glob("*.camera")) else None
    return {".json": _read_transforms, ".csv": _read_table}.get(path.suffix.lower())


def _read_transforms(path: Path) -> ReferenceCameras:
    """nerfstudio and instant-ngp: camera-to-world with camera axes x right, y up, z backwards (OpenGL)."""
    frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
    world_from_cam = np.array([np.asarray(frame["transform_matrix"], np.float64)[:3, :4] for frame in frames])
    flip = np.diag([1.0, -1.0, -1.0])
    rotations = flip @ world_from_cam[:, :, :3].transpose(0, 2, 1)
    return ReferenceCameras([frame["file_path"] for frame in frames], world_from_cam[:, :, 3], rotations)


def _read_colmap(path: Path) -> ReferenceCameras:
    import pycolmap

    images = [image for image in pycolmap.Reconstruction(path).images.values() if image.has_pose]
    matrices = np.array([image.cam_from_world().matrix() for image in images]).reshape(-1, 3, 4)
    centers = centers_world(matrices)
    return ReferenceCameras([image.name for image in images], centers, matrices[:, :, :3])


def _read_strecha(path: Path) -> ReferenceCameras:
    """Strecha et al. 2008: K (3 rows), distortion (1), R camera-to-world (3), centre, image size."""
    files = sorted(path.glob("*.camera"))
    numbers = [np.array(file.read_text().split(), np.float64) for file in files]
    rotations = np.array([n[12:21].reshape(3, 3).T for n in numbers])
    names = [file.name.removesuffix(".camera") for file in files]
    return ReferenceCameras(names, np.array([n[21:24] for n in numbers]), rotations)


def _read_table(path: Path) -> ReferenceCameras:
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    centers = np.array([[float(row[axis]) for axis in "xyz"] for row in rows]).reshape(-1, 3)
    return ReferenceCameras([row["name"] for row in rows], centers, None)


def match_camera_names(names: list[str], reference: list[str]) -> tuple[Int[Array, "m"], Int[Array, "m"]]:
    """Indices into both lists of the photos of equal name: by the last k parts of their paths, with or without suffix.

    The k and the suffix rule with the most matches win (of equal ones the longest paths, with suffix); a name that is
    not unique on either side matches nothing. So "images/a/1.jpg" matches "a/1.png", unless there are two of those.
    """
    ours, theirs = ([PurePosixPath(name.lower().replace("\\", "/")) for name in side] for side in (names, reference))
    best: list[tuple[int, int]] = []
    max_depth = max((len(path.parts) for path in ours), default=0)
    for depth, strip in itertools.product(range(max_depth, 0, -1), (False, True)):
        matches = _match_unique(*([_path_tail(path, depth, strip) for path in side] for side in (ours, theirs)))
        best = matches if len(matches) > len(best) else best
    return np.array([i for i, _ in best], np.int64), np.array([j for _, j in best], np.int64)


def _path_tail(path: PurePosixPath, depth: int, strip: bool) -> tuple[str, ...]:
    return (path.with_suffix("") if strip else path).parts[-depth:]


def _match_unique(ours: list[tuple[str, ...]], theirs: list[tuple[str, ...]]) -> list[tuple[int, int]]:
    unique = {k for k, n in Counter(ours).items() if n == 1} & {k for k, n in Counter(theirs).items() if n == 1}
    where = {key: j for j, key in enumerate(theirs)}
    return [(i, where[key]) for i, key in enumerate(ours) if key in unique]


def align_to_reference(
    names: list[str], cam_from_world: Float[Array, "n 3 4"], reference: ReferenceCameras, *, seed: int = 0
) -> tuple[Similarity, PoseErrors, list[dict[str, float | str | None]]]:
    """truth_from_world fitted robustly to the centres of cameras of equal name, the errors, and a row per such camera.

    The errors are over all matched cameras, including the outliers of the fit.
    """
    ours, theirs = match_camera_names(names, reference.names)
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
