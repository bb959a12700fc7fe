"""Choice of the world frame, its up, scale and origin: by GPS, else by cameras and lines at the scale of SfM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from quoin.pipeline.geometry.similarity import Similarity, fit_similarity_robust, inlier_limit

Array = np.ndarray


@dataclass(frozen=True)
class WorldFrameParams:
    """How much cameras and GPS are trusted to say what is up and where north is."""

    max_up_disagreement_deg: float = 30.0  # between two cameras' ups; farther ones disagree, however far
    max_sampled_photos: int = 500  # photos among which the up that most agree on is looked for
    camera_up_weight: float = 0.01  # of the cameras' own up, beside variances of right axes up to 0.5
    min_gps_photos: int = 4  # registered photos with GPS
    min_tilt_gravity_confidence: float = 0.4  # of gravity, 0..1, to stand in for the tilt by GPS
    max_tilt_deg: float = 20.0  # between up by GPS and by gravity, beyond which GPS is not trusted
    min_inlier_share: float = 0.5  # of the photos with GPS, that a fit must explain
    max_error_share: float = 0.05  # standard error of the fit, per extent of the positions along their main axis
    max_second_error_share: float = 0.1  # likewise along their second axis, where GPS gives the tilt


WORLD_FRAME = WorldFrameParams()


@dataclass(frozen=True)
class Gravity:
    """Unit vector ``up`` in the frame of the cameras, its confidence 0..1, and its source."""

    up: Float[Array, "3"]
    confidence: float
    provenance: str = "camera axes"


def gravity_from_cameras(cam_from_sfm: Float[Array, "n 3 4"]) -> Gravity:
    """Up is what the right axes of all cameras are level to: people hold cameras level, whatever they look at.

    Least-variance direction of the right axes, robust to photos held otherwise (iteratively reweighted), pulled
    towards the cameras' own up where the axes alone leave it open; cameras that look straight down say up is behind
    them. It is looked for twice, from all photos alike and from the way up that most of them agree on: where all look
    one way, a single turned photo leads the first astray. Confidence: how level the right axes are to it, how well they
    span the level plane, and whether the cameras' own up agrees (for cameras looking down it cannot).
    """
    right, own_up, forward = cam_from_sfm[:, 0, :3], -cam_from_sfm[:, 1, :3], cam_from_sfm[:, 2, :3]
    mean_up = own_up.mean(axis=0)
    sampled_up = own_up[:: max(1, len(own_up) // WORLD_FRAME.max_sampled_photos)]
    angles = np.minimum(
        np.arccos(np.clip(sampled_up @ sampled_up.T, -1, 1)), np.radians(WORLD_FRAME.max_up_disagreement_deg)
    )
    starts = np.ones(len(right)), 1.0 / _tilt_of(right, sampled_up[np.argmin(angles.sum(axis=1))])
    candidates = [_least_variance_axis(right, mean_up, weights) for weights in starts]
    up = min(candidates, key=lambda axis: float(_tilt_of(right, axis).mean()))
    alignment = float(mean_up @ up)
    sign = np.sign(alignment) if abs(alignment) > 0.2 else -np.sign(float(forward.mean(axis=0) @ up))
    up = up * (sign or 1.0)
    tilt = float(np.median(np.abs(right @ up)))  # 0 when level, 0.5 when random
    span = float(np.linalg.eigvalsh(right.T @ right / len(right))[1])  # 0 when all look one way, 0.5 all round
    up_alignment = float(np.median(own_up @ up))  # 1 when looking ahead, 0 when looking down
    parts = [np.clip(1 - tilt / 0.3, 0, 1), np.clip(0.4 + 6 * span, 0, 1), np.clip(up_alignment / 0.5, 0.4, 1)]
    return Gravity(up, float(np.prod(parts)))


def _tilt_of(right: Float[Array, "n 3"], up: Float[Array, "3"]) -> Float[Array, "n"]:
    """How far each right axis is off level, where ``up`` is up, a little at least: the inverse of its weight."""
    return np.abs(right @ up) + 0.05


def _least_variance_axis(
    right: Float[Array, "n 3"], mean_up: Float[Array, "3"], weights: Float[Array, "n"]
) -> Float[Array, "3"]:
    for _ in range(20):
        spread = np.einsum("n,ni,nj->ij", weights, right, right) / weights.sum()
        up = np.linalg.eigh(spread - WORLD_FRAME.camera_up_weight * np.outer(mean_up, mean_up))[1][:, 0]
        weights = 1.0 / _tilt_of(right, up)
    return up


def gravity_aligned_axes(up: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rows x, y, z of a right-handed frame whose z is ``up`` (unit); x is level, near the axis farthest off ``up``."""
    return _rotation_to_up(up, np.eye(3)[np.argmin(np.abs(up))])


def gravity_aligned_frame(
    gravity: Gravity,
    cam_from_sfm: Float[Array, "n 3 4"],
    points_sfm: Float[Array, "p 3"],
    walls: Float[Array, "k 3"],
    scale: float = 1.0,
    scale_from: str = "scale of SfM",
) -> Similarity:
    """world_from_sfm with z up, the median point at the origin, and ``scale``.

    x is the first camera's right, turned to the nearest of the axes square to the first of ``walls`` (their normals),
    where there are any.
    """
    right, source = cam_from_sfm[0, 0, :3], ""
    if len(walls):
        sideways = np.cross(gravity.up, walls[0])
        right = max((walls[0], sideways, -walls[0], -sideways), key=lambda axis: float(axis @ right))
        source = "x along or square to the main walls; "
    rotation = _rotation_to_up(gravity.up, right)
    middle = np.median(points_sfm, axis=0)
    return Similarity(
        scale,
        rotation,
        -scale * (rotation @ middle),
        f"gravity from {gravity.provenance}, confidence {gravity.confidence:.2f}; {source}{scale_from}",
    )


def _rotation_to_up(up: Float[Array, "3"], right: Float[Array, "3"]) -> Float[Array, "3 3"]:
    x = right - (right @ up) * up
    if np.linalg.norm(x) < 1e-3:
        x = np.eye(3)[np.argmin(np.abs(up))]
        x = x - (x @ up) * up
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x), up])


# -- GPS ---------------------------------------------------------------------------------------------------------------

_WGS84_A, _WGS84_F = 6378137.0, 1 / 298.257223563
_E2 = _WGS84_F * (2 - _WGS84_F)


def ecef_m(geodetic: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Earth-centred metres of latitude and longitude in degrees and altitude in metres above the WGS 84 ellipsoid."""
    latitude, longitude = np.radians(geodetic[:, 0]), np.radians(geodetic[:, 1])
    normal = _WGS84_A / np.sqrt(1 - _E2 * np.sin(latitude) ** 2)
    level = (normal + geodetic[:, 2]) * np.cos(latitude)
    height = (normal * (1 - _E2) + geodetic[:, 2]) * np.sin(latitude)
    return np.stack([level * np.cos(longitude), level * np.sin(longitude), height], axis=1)


def enu_m(geodetic: Float[Array, "n 3"], origin: Float[Array, "3"]) -> Float[Array, "n 3"]:
    """East, north, up in metres from ``origin`` (latitude, longitude in degrees, altitude in metres)."""
    lat, lon = np.radians(origin[:2])
    axes = np.array(
        [
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
        ]
    )
    return (ecef_m(geodetic) - ecef_m(origin[None])) @ axes.T


def median_geodetic(geodetic: Float[Array, "n 3"]) -> Float[Array, "3"]:
    """Median latitude, longitude (degrees) and altitude of places near each other, also where ±180° is between them."""
    first = geodetic[0, 1]
    sideways = first + (geodetic[:, 1] - first + 180.0) % 360.0 - 180.0
    return np.median(np.column_stack([geodetic[:, 0], sideways, geodetic[:, 2]]), axis=0)


@dataclass(frozen=True)
class Georeference:
    """world_from_sfm in metres east, north, up of ``origin`` (latitude, longitude, altitude); how well GPS agrees."""

    world_from_sfm: Similarity
    origin: Float[Array, "3"]
    residual_m: float
    n_inliers: int


def georeference(
    centers_sfm: Float[Array, "n 3"], geodetic: Float[Array, "n 3"], gravity: Gravity, seed: int
) -> Georeference | str:
    """Fit the camera centres to their GPS positions; a sentence where GPS does not carry it.

    All seven degrees of freedom where positions span two directions well beyond their noise; otherwise gravity gives
    the tilt and GPS the rest; otherwise nothing. ``geodetic`` [n, 3] is latitude and longitude in degrees, altitude in
    metres; NaN for photos without GPS; unknown altitudes count as level.
    """
    has_gps = np.isfinite(geodetic[:, :2]).all(axis=1)
    if has_gps.sum() < WORLD_FRAME.min_gps_photos:
        return f"{has_gps.sum()} registered photos have GPS, a georeference needs {WORLD_FRAME.min_gps_photos}"
    places, centers = geodetic[has_gps].copy(), centers_sfm[has_gps]
    altitude = places[:, 2]
    altitude[~np.isfinite(altitude)] = np.nanmedian(altitude) if np.isfinite(altitude).any() else 0.0
    origin = median_geodetic(places)
    enu = enu_m(places, origin)
    fit, inliers = fit_similarity_robust(centers, enu, seed=seed, provenance="GPS")
    residual, error, extent = _fit_quality(fit, centers, enu, inliers)
    if inliers.sum() >= max(WORLD_FRAME.min_gps_photos, WORLD_FRAME.min_inlier_share * has_gps.sum()):
        tilt = np.degrees(np.arccos(np.clip((fit.rotation @ gravity.up)[2], -1, 1)))
        is_consistent = gravity.confidence < WORLD_FRAME.min_tilt_gravity_confidence or tilt < WORLD_FRAME.max_tilt_deg
        fits = (
            error < WORLD_FRAME.max_error_share * extent[0] and error < WORLD_FRAME.max_second_error_share * extent[1]
        )
        if fits and is_consistent:
            return Georeference(_with_provenance(fit, "GPS", inliers, residual), origin, residual, int(inliers.sum()))
    if gravity.confidence >= WORLD_FRAME.min_tilt_gravity_confidence:
        fit, inliers = _fit_level(centers, enu, gravity)
        residual, error, extent = _fit_quality(fit, centers, enu, inliers)
        if (
            inliers.sum() >= max(WORLD_FRAME.min_gps_photos, WORLD_FRAME.min_inlier_share * has_gps.sum())
            and error < WORLD_FRAME.max_error_share * extent[0]
        ):
            named = _with_provenance(fit, "GPS with tilt from camera axes", inliers, residual)
            return Georeference(named, origin, residual, int(inliers.sum()))
    return f"GPS positions do not fit the cameras (off by {residual:.1f} m over {extent[0]:.1f} m)"


def _with_provenance(fit: Similarity, source: str, inliers: Array, residual: float) -> Similarity:
    text = f"{source}: {int(inliers.sum())} of {len(inliers)} photos, residual {residual:.2f} m"
    return Similarity(fit.scale, fit.rotation, fit.translation, text)


def _fit_quality(fit: Similarity, centers: Array, enu: Array, inliers: Array) -> tuple[float, float, Array]:
    """Root mean square residual (m), standard error of the fit (m), spread of the inliers along their two main axes."""
    distances = np.linalg.norm(fit.apply(centers[inliers]) - enu[inliers], axis=1)
    residual = float(np.sqrt((distances**2).mean())) if len(distances) else np.inf
    spread = enu[inliers] - enu[inliers].mean(axis=0)
    extent = np.linalg.svd(spread, compute_uv=False)[:2] / np.sqrt(max(len(distances), 1))
    return residual, residual / np.sqrt(max(len(distances) - 2, 1)), np.pad(extent, (0, 2 - len(extent)))


def _fit_level(centers: Array, enu: Array, gravity: Gravity) -> tuple[Similarity, Array]:
    """Scale, heading and translation with z up given, on inliers (three rounds of trimming)."""
    upright = gravity_aligned_axes(gravity.up)
    level = centers @ upright.T
    inliers = np.ones(len(level), bool)
    for _ in range(4):
        source, target = level[inliers], enu[inliers]
        mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
        s = (source - mean_s)[:, 0] + 1j * (source - mean_s)[:, 1]
        t = (target - mean_t)[:, 0] + 1j * (target - mean_t)[:, 1]
        turn = (np.conj(s) @ t) / max(float((np.abs(s) ** 2).sum()), 1e-300)
        scale, angle = max(float(np.abs(turn)), 1e-12), float(np.angle(turn))
        heading = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        rotation = heading @ upright
        fit = Similarity(scale, rotation, mean_t - scale * heading @ mean_s)
        distances = np.linalg.norm((fit.apply(centers) - enu)[:, :2], axis=1)
        inliers = distances <= inlier_limit(distances[inliers])
    return fit, inliers
