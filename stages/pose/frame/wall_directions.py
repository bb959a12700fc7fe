"""Votes of straight lines for up and for the directions of walls (Manhattan or Atlanta world); ``world_frame`` decides.

Coughlan and Yuille 1999 for lines that vote for an orthogonal frame, Schindler and Dellaert 2004 for several frames
that share the vertical (Atlanta). Poses being known, a line of any photo votes in one frame; what votes by chance is
measured in the directions where nothing stands out, and does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from quoin.pipeline.geometry.similarity import robust_sigma
from quoin.pipeline.scene.manhattan import ManhattanFrame
from quoin.stages.pose.frame.lines import Lines, misfit_rad
from quoin.stages.pose.frame.world_frame import Gravity, gravity_aligned_axes

Array = np.ndarray


@dataclass(frozen=True)
class WallParams:
    """How lines vote for up and for the directions of walls, and which of those are trusted."""

    min_gravity_confidence: float = 0.3  # of the cameras' up, 0..1, to look for vertical lines near it
    max_up_error_deg: float = 20.0  # error of the cameras' up, at most
    up_error_sigma_deg: float = 8.0  # error of the cameras' up, standard deviation
    inlier_sigmas: float = 2.5  # standard deviations of its angle, up to which a line fits a direction
    min_peak_sigmas: float = 6.0  # height of a peak of votes, in standard deviations of the votes elsewhere
    min_peak_ratio: float = 1.5  # height of the peak of up, per height of any other within reach
    vote_blur_rad: float = math.radians(0.5)  # blur of votes: directions are tried about a degree apart
    baseline_window_deg: float = 30.0  # of the median taken off the votes: a hill as broad is no direction
    yaw_step_deg: float = 0.5  # between the yaws that are tried
    min_direction_share: float = 0.05  # of the length of all lines but vertical ones, for a direction of walls
    min_share_of_strongest: float = 0.3  # of the strongest direction's share, likewise
    max_directions: int = 4  # directions; with more there are no walls
    min_separation_deg: float = 10.0  # between two directions; walls that are not quite straight are one
    right_angle_share_factor: float = 0.4  # on both shares, at a right angle to one found: rooms are boxes
    right_angle_tolerance_deg: float = 3.0  # deviation from a right angle, up to which two directions are made square
    min_explained_share: float = 0.15  # share of lines explained by all directions, up to which the confidence is 0
    full_explained_share: float = 0.45  # share of lines explained by all directions, from which on the confidence is 1
    min_wall_confidence: float = 0.5  # confidence from which on walls are trusted, 0..1
    min_direction_photos: int = 3  # photos that show a direction
    min_lines_per_photo: int = 3  # lines from which on a photo shows a direction


WALLS = WallParams()


class RefinedGravity(NamedTuple):
    """Gravity refined by vertical lines; ``is_vertical`` [S] marks them."""

    gravity: Gravity
    is_vertical: Bool[Array, "s"]


def refine_gravity(lines: Lines, gravity: Gravity) -> RefinedGravity:
    """Gravity along the direction near the cameras' up that most lines have; the cameras' own where none stands out."""
    unchanged = RefinedGravity(gravity, np.zeros(len(lines), bool))
    if gravity.confidence < WALLS.min_gravity_confidence or len(lines) == 0:
        return unchanged
    candidates = _directions_near(gravity.up, WALLS.max_up_error_deg)
    votes = _votes(lines, candidates, WALLS.vote_blur_rad)
    angles = np.degrees(np.arccos(np.clip(candidates @ gravity.up, -1, 1)))
    best = int(np.argmax(votes * np.exp(-0.5 * (angles / WALLS.up_error_sigma_deg) ** 2)))
    background = votes[candidates @ candidates[best] < np.cos(np.radians(5.0))]
    median_votes = float(np.median(background))
    peak_height = votes[best] - median_votes
    up = _refine_direction(lines, candidates[best])
    is_vertical = _inliers(lines, up[None])[0]
    n_photos = lines.count_photos(is_vertical, 2)
    sigma = robust_sigma(background - np.median(background))
    stands_out = (peak_height > WALLS.min_peak_sigmas * sigma) and (
        peak_height > WALLS.min_peak_ratio * (background.max() - median_votes)
    )
    if (
        not stands_out
        or n_photos < WALLS.min_direction_photos
        or up @ gravity.up < np.cos(np.radians(WALLS.max_up_error_deg + 2))
    ):
        return unchanged
    chance = np.median(_inliers(lines, candidates[:: max(1, len(candidates) // 50)]) @ lines.length_px)
    share = float((lines.length_px[is_vertical].sum() - chance) / lines.length_px.sum())
    certainty = np.clip(share / 0.1, 0, 1) * np.clip(n_photos / lines.n_photos / 0.5, 0, 1)
    confidence = float(1 - (1 - gravity.confidence) * (1 - 0.9 * certainty))
    return RefinedGravity(Gravity(up, confidence, "camera axes and upright lines"), is_vertical)


def find_walls(lines: Lines, refined: RefinedGravity) -> ManhattanFrame:
    """The directions of walls, in the frame of ``lines``; up is refined by them as well where they are trusted."""
    gravity = refined.gravity
    if gravity.confidence < WALLS.min_gravity_confidence:
        return _no_walls(gravity.up, "what is up is not known well enough")
    level = lines.select(~refined.is_vertical)
    total = float(level.length_px.sum())
    if level.count_photos(np.ones(len(level), bool), WALLS.min_lines_per_photo) < WALLS.min_direction_photos:
        return _no_walls(gravity.up, "the photos show hardly any straight lines")
    yaws, shares = _peaks(level, gravity.up, total)
    if len(yaws) == 0:
        return _no_walls(gravity.up, "level lines run in no direction more than in others")
    yaws, group = _snap_right_angles(yaws)
    up, yaws = _fit_directions(lines, refined, yaws, group)
    inlier = _inliers(level, _horizontal(up, yaws)) if len(yaws) else np.zeros((0, len(level)), bool)
    n_photos = np.array([level.count_photos(is_inlier, WALLS.min_lines_per_photo) for is_inlier in inlier])
    kept = n_photos >= WALLS.min_direction_photos
    yaws, shares, n_photos = yaws[kept], shares[kept], n_photos[kept]
    if len(yaws) == 0:
        return _no_walls(gravity.up, "lines in one direction are seen in too few photos")
    if len(yaws) > WALLS.max_directions:
        return _no_walls(gravity.up, "level lines run in more directions than walls usually do")
    share = float(shares.sum())
    photo_share = level.count_photos(np.asarray(inlier[kept].any(axis=0)), WALLS.min_lines_per_photo) / lines.n_photos
    explained = (share - WALLS.min_explained_share) / (WALLS.full_explained_share - WALLS.min_explained_share)
    confidence = float(np.clip(explained, 0, 1) * np.clip(photo_share / 0.5, 0, 1))
    if confidence < WALLS.min_wall_confidence:
        return _no_walls(gravity.up, f"walls would explain {share:.0%} of the lines only", confidence)
    return ManhattanFrame(up, _horizontal(up, yaws + np.pi / 2), shares, n_photos, confidence)


def gravity_from_walls(refined: RefinedGravity, walls: ManhattanFrame) -> Gravity:
    """Gravity refined by the directions of walls as well."""
    if walls.reason:
        return refined.gravity
    confidence = float(1 - (1 - refined.gravity.confidence) * (1 - 0.9 * walls.confidence))
    return Gravity(walls.up_world, confidence, "camera axes and the lines of walls")


def _no_walls(up: Array, reason: str, confidence: float = 0.0) -> ManhattanFrame:
    return ManhattanFrame(up, np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64), confidence, reason)


# -- votes -------------------------------------------------------------------------------------------------------------


def _directions_near(middle: Float[Array, "3"], radius_deg: float) -> Float[Array, "k 3"]:
    """Unit vectors about a degree apart, up to ``radius_deg`` from ``middle``."""
    steps = np.radians(np.arange(-radius_deg, radius_deg + 0.5, 1.0))
    a, b = (v.ravel() for v in np.meshgrid(steps, steps))
    size = np.hypot(a, b)
    a, b, size = (v[size <= np.radians(radius_deg) + 1e-9] for v in (a, b, size))
    x, y, z = gravity_aligned_axes(middle)
    around = (a[:, None] * x + b[:, None] * y) * np.sinc(size / np.pi)[:, None]
    return around + np.cos(size)[:, None] * z


def _votes(lines: Lines, directions: Float[Array, "k 3"], blur_rad: float) -> Float[Array, "k"]:
    """Density of line length about each direction, per degree: a line spreads its length over its own uncertainty.

    (Epanechnikov's kernel.) Short lines make broad hills, long ones the peaks.
    """
    width = WALLS.inlier_sigmas * np.hypot(lines.sigma_rad, blur_rad)
    length = lines.length_px * np.radians(1.0) / width
    chunk = max(1, 1_000_000 // max(len(lines), 1))
    parts = [directions[i : i + chunk] for i in range(0, len(directions), chunk)]
    return np.concatenate([np.maximum(0, 1 - (misfit_rad(lines, p) / width) ** 2) @ length for p in parts])


def _refine_direction(lines: Lines, direction: Float[Array, "3"]) -> Float[Array, "3"]:
    """The direction nearby orthogonal to the normals of its lines, reweighted (bisquare) in ever narrower windows."""
    for blur in np.radians([1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0, 0.0, 0.0]):
        scale = WALLS.inlier_sigmas * np.hypot(lines.sigma_rad, blur)
        share = np.maximum(0, 1 - (misfit_rad(lines, direction[None])[0] / scale) ** 2) ** 2
        reach = 1 - (lines.middle @ direction) ** 2
        weight = lines.length_px * share / (lines.sigma_rad**2 * np.maximum(reach, 1e-4))
        if (share > 0).sum() < 2:
            return direction
        eigenvector = np.linalg.eigh(np.einsum("s,si,sj->ij", weight, lines.normal, lines.normal))[1][:, 0]
        direction = eigenvector * np.sign(eigenvector @ direction)
    return direction


# -- level directions --------------------------------------------------------------------------------------------------


def _horizontal(up: Float[Array, "3"], yaws: Float[Array, "k"]) -> Float[Array, "k 3"]:
    x, y, _ = gravity_aligned_axes(up)
    return np.cos(yaws)[:, None] * x + np.sin(yaws)[:, None] * y


def _peaks(level: Lines, up: Float[Array, "3"], total: float) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
    """Yaws (of lines, from ``gravity_aligned_axes``) that stand out, strongest first, and their shares beyond chance.

    After each, its lines are taken out: what is left of the votes beside it is no direction of its own.
    """
    yaws = np.radians(np.arange(0, 180, WALLS.yaw_step_deg))
    candidates = _horizontal(up, yaws)
    window = 2 * round(WALLS.baseline_window_deg / WALLS.yaw_step_deg / 2) + 1
    tried_yaws: list[float] = []
    found_yaws: list[float] = []
    shares: list[float] = []
    remaining = level
    for _ in range(2 * WALLS.max_directions):
        votes = _votes(remaining, candidates, WALLS.vote_blur_rad)
        votes -= ndimage.median_filter(votes, window, mode="wrap")
        is_separate = np.array(
            [np.abs(_half_turn(yaws - yaw)) >= np.radians(WALLS.min_separation_deg) for yaw in tried_yaws]
        ).all(axis=0)
        best = int(np.argmax(np.where(is_separate, votes, -np.inf)))
        if votes[best] < WALLS.min_peak_sigmas * robust_sigma(votes - np.median(votes)):
            break
        tried_yaws.append(float(yaws[best]))
        is_inlier = _inliers(remaining, candidates[[best]], WALLS.vote_blur_rad)[0]
        chance = np.median(_inliers(remaining, candidates[::4], WALLS.vote_blur_rad) @ remaining.length_px)
        share = float(remaining.length_px[is_inlier].sum() - chance) / total
        is_square = (
            np.abs(_half_turn(np.array(found_yaws) - yaws[best] - np.pi / 2))
            < np.radians(WALLS.right_angle_tolerance_deg)
        ).any()
        if share < max(WALLS.min_direction_share, WALLS.min_share_of_strongest * max(shares, default=0.0)) * (
            WALLS.right_angle_share_factor if is_square else 1.0
        ):
            continue
        found_yaws.append(float(yaws[best]))
        shares.append(share)
        remaining = remaining.select(~is_inlier)
    return np.array(found_yaws), np.array(shares)


def _half_turn(angle: Float[Array, "n"]) -> Float[Array, "n"]:
    """The angle between lines, in [-pi / 2, pi / 2)."""
    return (angle + np.pi / 2) % np.pi - np.pi / 2


def _inliers(lines: Lines, directions: Float[Array, "k 3"], blur_rad: float = 0.0) -> Bool[Array, "k s"]:
    return misfit_rad(lines, directions) < WALLS.inlier_sigmas * np.hypot(lines.sigma_rad, blur_rad)


def _snap_right_angles(yaws: Float[Array, "k"]) -> tuple[Float[Array, "k"], Int[Array, "k"]]:
    """Yaws, those at a right angle to a stronger one made exactly so; the row of that stronger one, or their own."""
    yaws, group = yaws.copy(), np.arange(len(yaws))
    for row in range(1, len(yaws)):
        is_square = np.abs(_half_turn(yaws[row] - yaws[:row] - np.pi / 2)) < np.radians(WALLS.right_angle_tolerance_deg)
        is_square &= group[:row] == np.arange(row)
        if is_square.any():
            group[row] = np.argmax(is_square)
            yaws[row] = yaws[group[row]] + np.pi / 2
    return yaws, group


def _fit_directions(
    lines: Lines, refined: RefinedGravity, yaws: Float[Array, "k"], group: Int[Array, "k"]
) -> tuple[Float[Array, "3"], Float[Array, "k"]]:
    """Up and yaws that fit all their lines together, right angles kept (Gauss-Newton, bisquare weights).

    Yaws come back from the ``gravity_aligned_axes`` of the up that is found. Lines in one direction leave a turn about
    it open: the up that went in holds it.
    """
    own = np.unique(group)
    offsets = yaws - yaws[group]

    def directions(p: Array) -> tuple[Array, Array]:
        """Up, and the level directions: x and y of the axes at the start, tilted along with up."""
        x, y, z = gravity_aligned_axes(refined.gravity.up)
        up = z + p[0] * x + p[1] * y
        up /= np.linalg.norm(up)
        rotation = _rotation_between(z, up)
        rotated_yaws = p[2 + np.searchsorted(own, group)] + offsets
        return up, (np.cos(rotated_yaws)[:, None] * x + np.sin(rotated_yaws)[:, None] * y) @ rotation.T

    def misfit(p: Array, rows: Array, nearest_direction: Array) -> Array:
        up, level = directions(p)
        d = np.vstack([up[None], level])[nearest_direction]
        across = np.einsum("si,si->s", d, lines.normal[rows])
        along = np.einsum("si,si->s", d, lines.along[rows])
        return np.arctan(across / np.where(np.abs(along) < 1e-9, 1e-9, along)) / lines.sigma_rad[rows]

    p = np.concatenate([[0.0, 0.0], yaws[own]])
    for blur in np.radians([0.5, 0.35, 0.25, 0.15, 0.1, 0.0, 0.0, 0.0]):
        up, level = directions(p)
        angles = misfit_rad(lines, np.vstack([up[None], level])) / np.hypot(lines.sigma_rad, blur)
        nearest_direction = np.argmin(angles, axis=0)
        nearest = angles[nearest_direction, np.arange(len(lines))]
        rows = np.nonzero(nearest < WALLS.inlier_sigmas)[0]
        nearest_direction = nearest_direction[rows]
        if len(rows) < len(p):
            break
        weight = (1 - (nearest[rows] / WALLS.inlier_sigmas) ** 2) ** 2 * lines.length_px[rows] / lines.length_px.mean()
        residuals = misfit(p, rows, nearest_direction)
        steps = 1e-5 * np.eye(len(p))
        jacobian = np.stack(
            [(misfit(p + s, rows, nearest_direction) - misfit(p - s, rows, nearest_direction)) / 2e-5 for s in steps],
            axis=1,
        )
        prior = np.diag(np.concatenate([[1.0, 1.0] / np.radians(1.0) ** 2, np.full(len(own), 1e-9)]))
        normal = jacobian.T @ (weight[:, None] * jacobian) + prior
        p = p - np.linalg.solve(normal, jacobian.T @ (weight * residuals) + prior @ np.r_[p[:2], np.zeros(len(own))])
    up, level = directions(p)
    x, y, _ = gravity_aligned_axes(up)
    return up, np.arctan2(level @ y, level @ x) % np.pi


def _rotation_between(a: Float[Array, "3"], b: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The shortest rotation that takes unit ``a`` to unit ``b``, less than half a turn apart (Rodrigues)."""
    v = np.cross(a, b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + a @ b)
