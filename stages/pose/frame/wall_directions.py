"""Up and the directions of walls from straight lines: all photos vote together (Manhattan or Atlanta world).

Coughlan and Yuille 1999 for lines that vote for an orthogonal frame, Schindler and Dellaert 2004 for several frames
that share the vertical (Atlanta). Poses being known, a line of any photo votes in one frame; what votes by chance is
measured in the directions where nothing stands out, and does not count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from quoin.pipeline.geometry.robust import robust_sigma
from quoin.pipeline.scene.manhattan import ManhattanFrame
from quoin.stages.pose.frame.lines import Lines, misfit_rad
from quoin.stages.pose.frame.world_frame import Gravity, gravity_aligned_axes

Array = np.ndarray

MIN_GRAVITY_CONFIDENCE = 0.3  # confidence of the cameras' up, from which on it says which lines to take for upright
MAX_UP_ERROR_DEG = 20.0  # by which the cameras' up may be off
UP_ERROR_SIGMA_DEG = 8.0  # by which it usually is at most
INLIER_SIGMAS = 2.5  # standard deviations
MIN_PEAK_SIGMAS = 6.0  # standard deviations above other directions
MIN_PEAK_RATIO = 1.5  # times as far above the usual as any other upright direction
VOTE_BLUR_RAD = np.radians(0.5)  # of directions that are tried about a degree apart
BASELINE_WINDOW_DEG = 30.0  # votes as broad as that are no direction
YAW_STEP_DEG = 0.5
MIN_DIRECTION_SHARE = 0.05  # of the length of all lines but upright ones, for a direction of walls
MIN_SHARE_OF_STRONGEST = 0.3  # share of a direction beside that of the strongest
MAX_DIRECTIONS = 4
MIN_SEPARATION_DEG = 10.0  # directions nearer to each other are one, of walls that are not quite straight
RIGHT_ANGLE_SHARE_FACTOR = (
    0.4  # of those two shares, for a direction at a right angle to one found: most rooms are boxes
)
RIGHT_ANGLE_TOLERANCE_DEG = 3.0  # two directions so near a right angle are at a right angle
MIN_EXPLAINED_SHARE, FULL_EXPLAINED_SHARE = (
    0.15,
    0.45,
)  # explained by all directions: up to here no walls, from here on no doubt
MIN_WALL_CONFIDENCE = 0.5
MIN_DIRECTION_PHOTOS = 3  # that show a direction, with MIN_LINES_PER_PHOTO each
MIN_LINES_PER_PHOTO = 3


class RefinedGravity(NamedTuple):
    """Gravity after lines have had their say; ``upright`` [S] marks lines that stand upright."""

    gravity: Gravity
    is_vertical: Bool[Array, "s"]


def refine_gravity(lines: Lines, gravity: Gravity) -> RefinedGravity:
    """The direction near the cameras' up that most lines stand in; the cameras' own where none stands out."""
    unchanged = RefinedGravity(gravity, np.zeros(len(lines), bool))
    if gravity.confidence < MIN_GRAVITY_CONFIDENCE or len(lines) == 0:
        return unchanged
    candidates = _directions_near(gravity.up, MAX_UP_ERROR_DEG)
    votes = _votes(lines, candidates, VOTE_BLUR_RAD)
    angles = np.degrees(np.arccos(np.clip(candidates @ gravity.up, -1, 1)))
    best = int(np.argmax(votes * np.exp(-0.5 * (angles / UP_ERROR_SIGMA_DEG) ** 2)))
    background = votes[candidates @ candidates[best] < np.cos(np.radians(5.0))]
    median_votes = float(np.median(background))
    peak_height = votes[best] - median_votes
    up = _refine_direction(lines, candidates[best])
    is_vertical = _inliers(lines, up[None])[0]
    n_photos = lines.count_photos(is_vertical, 2)
    sigma = robust_sigma(background - np.median(background))
    stands_out = (peak_height > MIN_PEAK_SIGMAS * sigma) and (
        peak_height > MIN_PEAK_RATIO * (background.max() - median_votes)
    )
    if not stands_out or n_photos < MIN_DIRECTION_PHOTOS or up @ gravity.up < np.cos(np.radians(MAX_UP_ERROR_DEG + 2)):
        return unchanged
    chance = np.median(_inliers(lines, candidates[:: max(1, len(candidates) // 50)]) @ lines.length_px)
    share = float((lines.length_px[is_vertical].sum() - chance) / lines.length_px.sum())
    certainty = np.clip(share / 0.1, 0, 1) * np.clip(n_photos / lines.n_photos / 0.5, 0, 1)
    confidence = float(1 - (1 - gravity.confidence) * (1 - 0.9 * certainty))
    return RefinedGravity(Gravity(up, confidence, "camera axes and upright lines"), is_vertical)


def find_walls(lines: Lines, refined: RefinedGravity) -> ManhattanFrame:
    """The directions of walls, in the frame of ``lines``; up is refined by them as well where they are trusted."""
    gravity = refined.gravity
    if gravity.confidence < MIN_GRAVITY_CONFIDENCE:
        return _no_walls(gravity.up, "what is up is not known well enough")
    level = lines.select(~refined.is_vertical)
    total = float(level.length_px.sum())
    if level.count_photos(np.ones(len(level), bool), MIN_LINES_PER_PHOTO) < MIN_DIRECTION_PHOTOS:
        return _no_walls(gravity.up, "the photos show hardly any straight lines")
    yaws, shares = _peaks(level, gravity.up, total)
    if len(yaws) == 0:
        return _no_walls(gravity.up, "level lines run in no direction more than in others")
    yaws, group = _snap_right_angles(yaws)
    up, yaws = _fit_directions(lines, refined, yaws, group)
    inlier = _inliers(level, _horizontal(up, yaws)) if len(yaws) else np.zeros((0, len(level)), bool)
    n_photos = np.array([level.count_photos(is_inlier, MIN_LINES_PER_PHOTO) for is_inlier in inlier])
    kept = n_photos >= MIN_DIRECTION_PHOTOS
    yaws, shares, n_photos = yaws[kept], shares[kept], n_photos[kept]
    if len(yaws) == 0:
        return _no_walls(gravity.up, "lines in one direction are seen in too few photos")
    if len(yaws) > MAX_DIRECTIONS:
        return _no_walls(gravity.up, "level lines run in more directions than walls usually do")
    share = float(shares.sum())
    photo_share = level.count_photos(np.asarray(inlier[kept].any(axis=0)), MIN_LINES_PER_PHOTO) / lines.n_photos
    explained = (share - MIN_EXPLAINED_SHARE) / (FULL_EXPLAINED_SHARE - MIN_EXPLAINED_SHARE)
    confidence = float(np.clip(explained, 0, 1) * np.clip(photo_share / 0.5, 0, 1))
    if confidence < MIN_WALL_CONFIDENCE:
        return _no_walls(gravity.up, f"walls would explain {share:.0%} of the lines only", confidence)
    return ManhattanFrame(up, _horizontal(up, yaws + np.pi / 2), shares, n_photos, confidence)


def gravity_from_walls(refined: RefinedGravity, walls: ManhattanFrame) -> Gravity:
    """What is up when walls have had their say too."""
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
    width = INLIER_SIGMAS * np.hypot(lines.sigma_rad, blur_rad)
    length = lines.length_px * np.radians(1.0) / width
    chunk = max(1, 1_000_000 // max(len(lines), 1))
    parts = [directions[i : i + chunk] for i in range(0, len(directions), chunk)]
    return np.concatenate([np.maximum(0, 1 - (misfit_rad(lines, p) / width) ** 2) @ length for p in parts])


def _refine_direction(lines: Lines, direction: Float[Array, "3"]) -> Float[Array, "3"]:
    """The direction nearby orthogonal to the normals of its lines, reweighted (bisquare) in ever narrower windows."""
    for blur in np.radians([1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0, 0.0, 0.0]):
        scale = INLIER_SIGMAS * np.hypot(lines.sigma_rad, blur)
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
    yaws = np.radians(np.arange(0, 180, YAW_STEP_DEG))
    candidates = _horizontal(up, yaws)
    window = 2 * round(BASELINE_WINDOW_DEG / YAW_STEP_DEG / 2) + 1
    tried_yaws: list[float] = []
    found_yaws: list[float] = []
    shares: list[float] = []
    remaining = level
    for _ in range(2 * MAX_DIRECTIONS):
        votes = _votes(remaining, candidates, VOTE_BLUR_RAD)
        votes -= ndimage.median_filter(votes, window, mode="wrap")
        is_separate = np.array(
            [np.abs(_half_turn(yaws - yaw)) >= np.radians(MIN_SEPARATION_DEG) for yaw in tried_yaws]
        ).all(axis=0)
        best = int(np.argmax(np.where(is_separate, votes, -np.inf)))
        if votes[best] < MIN_PEAK_SIGMAS * robust_sigma(votes - np.median(votes)):
            break
        tried_yaws.append(float(yaws[best]))
        is_inlier = _inliers(remaining, candidates[[best]], VOTE_BLUR_RAD)[0]
        chance = np.median(_inliers(remaining, candidates[::4], VOTE_BLUR_RAD) @ remaining.length_px)
        share = float(remaining.length_px[is_inlier].sum() - chance) / total
        is_square = (
            np.abs(_half_turn(np.array(found_yaws) - yaws[best] - np.pi / 2)) < np.radians(RIGHT_ANGLE_TOLERANCE_DEG)
        ).any()
        if share < max(MIN_DIRECTION_SHARE, MIN_SHARE_OF_STRONGEST * max(shares, default=0.0)) * (
            RIGHT_ANGLE_SHARE_FACTOR if is_square else 1.0
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
    return misfit_rad(lines, directions) < INLIER_SIGMAS * np.hypot(lines.sigma_rad, blur_rad)


def _snap_right_angles(yaws: Float[Array, "k"]) -> tuple[Float[Array, "k"], Int[Array, "k"]]:
    """Yaws, those at a right angle to a stronger one made exactly so; the row of that stronger one, or their own."""
    yaws, group = yaws.copy(), np.arange(len(yaws))
    for row in range(1, len(yaws)):
        is_square = np.abs(_half_turn(yaws[row] - yaws[:row] - np.pi / 2)) < np.radians(RIGHT_ANGLE_TOLERANCE_DEG)
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
        rows = np.nonzero(nearest < INLIER_SIGMAS)[0]
        nearest_direction = nearest_direction[rows]
        if len(rows) < len(p):
            break
        weight = (1 - (nearest[rows] / INLIER_SIGMAS) ** 2) ** 2 * lines.length_px[rows] / lines.length_px.mean()
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
