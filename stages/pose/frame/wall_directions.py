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

from quoin.pipeline.scene.manhattan import WallFrame
from quoin.stages.pose.frame.lines import Lines, misfit_rad
from quoin.stages.pose.frame.world_frame import Gravity, level_axes

Array = np.ndarray

MIN_GRAVITY = 0.3  # confidence of the cameras' up, from which on it says which lines to take for upright
UP_DEG = 20.0  # by which the cameras' up may be off
UP_SIGMA_DEG = 8.0  # by which it usually is at most
INLIER = 2.5  # standard deviations
MIN_PEAK = 6.0  # standard deviations above other directions
CLEAR = 1.5  # times as far above the usual as any other upright direction
BLUR_RAD = np.radians(0.5)  # of directions that are tried about a degree apart
BROAD_DEG = 30.0  # votes as broad as that are no direction
YAW_STEP_DEG = 0.5
MIN_SHARE = 0.05  # of the length of all lines but upright ones, for a direction of walls
MIN_OF_STRONGEST = 0.3  # share of a direction beside that of the strongest
MAX_DIRECTIONS = 4
APART_DEG = 10.0  # directions nearer to each other are one, of walls that are not quite straight
SQUARE_FACTOR = 0.4  # of those two shares, for a direction at a right angle to one found: most rooms are boxes
SQUARE_DEG = 3.0  # two directions so near a right angle are at a right angle
FEW_SHARE, GOOD_SHARE = 0.15, 0.45  # explained by all directions: up to here no walls, from here on no doubt
MIN_CONFIDENCE = 0.5
MIN_PHOTOS = 3  # that show a direction, with MIN_LINES each
MIN_LINES = 3


class Upright(NamedTuple):
    """Gravity after lines have had their say; ``upright`` [S] marks lines that stand upright."""

    gravity: Gravity
    upright: Bool[Array, "s"]


def refine_up(lines: Lines, gravity: Gravity) -> Upright:
    """The direction near the cameras' up that most lines stand in; the cameras' own where none stands out."""
    none = Upright(gravity, np.zeros(len(lines), bool))
    if gravity.confidence < MIN_GRAVITY or len(lines) == 0:
        return none
    tried = _cap(gravity.up, UP_DEG)
    votes = _votes(lines, tried, BLUR_RAD)
    off = np.degrees(np.arccos(np.clip(tried @ gravity.up, -1, 1)))
    best = int(np.argmax(votes * np.exp(-0.5 * (off / UP_SIGMA_DEG) ** 2)))
    others = votes[tried @ tried[best] < np.cos(np.radians(5.0))]
    usual = float(np.median(others))
    height = votes[best] - usual
    up = _sharpened(lines, tried[best])
    upright = _assigned(lines, up[None])[0]
    n_photos = lines.seen(upright, 2)
    stands_out = height > MIN_PEAK * _deviation(others) and height > CLEAR * (others.max() - usual)
    if not stands_out or n_photos < MIN_PHOTOS or up @ gravity.up < np.cos(np.radians(UP_DEG + 2)):
        return none
    chance = np.median(_assigned(lines, tried[:: max(1, len(tried) // 50)]) @ lines.length_px)
    share = float((lines.length_px[upright].sum() - chance) / lines.length_px.sum())
    sure = np.clip(share / 0.1, 0, 1) * np.clip(n_photos / lines.n_photos / 0.5, 0, 1)
    confidence = float(1 - (1 - gravity.confidence) * (1 - 0.9 * sure))
    return Upright(Gravity(up, confidence, "camera axes and upright lines"), upright)


def find_walls(lines: Lines, found: Upright) -> WallFrame:
    """The directions of walls, in the frame of ``lines``; up is refined by them as well where they are trusted."""
    gravity = found.gravity
    if gravity.confidence < MIN_GRAVITY:
        return _none(gravity.up, "what is up is not known well enough")
    level = lines.pick(~found.upright)
    total = float(level.length_px.sum())
    if level.seen(np.ones(len(level), bool), MIN_LINES) < MIN_PHOTOS:
        return _none(gravity.up, "the photos show hardly any straight lines")
    yaws, shares = _peaks(level, gravity.up, total)
    if len(yaws) == 0:
        return _none(gravity.up, "level lines run in no direction more than in others")
    yaws, group = _squared(yaws)
    up, yaws = _fitted(lines, found, yaws, group)
    inlier = _assigned(level, _horizontal(up, yaws)) if len(yaws) else np.zeros((0, len(level)), bool)
    n_photos = np.array([level.seen(mine, MIN_LINES) for mine in inlier])
    kept = n_photos >= MIN_PHOTOS
    yaws, shares, n_photos = yaws[kept], shares[kept], n_photos[kept]
    if len(yaws) == 0:
        return _none(gravity.up, "lines in one direction are seen in too few photos")
    if len(yaws) > MAX_DIRECTIONS:
        return _none(gravity.up, "level lines run in more directions than walls usually do")
    share = float(shares.sum())
    seen = level.seen(np.asarray(inlier[kept].any(axis=0)), MIN_LINES) / lines.n_photos
    explained = (share - FEW_SHARE) / (GOOD_SHARE - FEW_SHARE)
    confidence = float(np.clip(explained, 0, 1) * np.clip(seen / 0.5, 0, 1))
    if confidence < MIN_CONFIDENCE:
        return _none(gravity.up, f"walls would explain {share:.0%} of the lines only", confidence)
    return WallFrame(up, _horizontal(up, yaws + np.pi / 2), shares, n_photos, confidence)


def gravity_with(found: Upright, walls: WallFrame) -> Gravity:
    """What is up when walls have had their say too."""
    if walls.reason:
        return found.gravity
    confidence = float(1 - (1 - found.gravity.confidence) * (1 - 0.9 * walls.confidence))
    return Gravity(walls.up_world, confidence, "camera axes and the lines of walls")


def _none(up: Array, reason: str, confidence: float = 0.0) -> WallFrame:
    return WallFrame(up, np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64), confidence, reason)


# -- votes -------------------------------------------------------------------------------------------------------------


def _cap(middle: Float[Array, "3"], radius_deg: float) -> Float[Array, "k 3"]:
    """Unit vectors about a degree apart, up to ``radius_deg`` from ``middle``."""
    steps = np.radians(np.arange(-radius_deg, radius_deg + 0.5, 1.0))
    a, b = (v.ravel() for v in np.meshgrid(steps, steps))
    size = np.hypot(a, b)
    a, b, size = (v[size <= np.radians(radius_deg) + 1e-9] for v in (a, b, size))
    x, y, z = level_axes(middle)
    around = (a[:, None] * x + b[:, None] * y) * np.sinc(size / np.pi)[:, None]
    return around + np.cos(size)[:, None] * z


def _votes(lines: Lines, directions: Float[Array, "k 3"], blur_rad: float) -> Float[Array, "k"]:
    """Density of line length about each direction, per degree: a line spreads its length over its own uncertainty.

    (Epanechnikov's kernel.) Short lines make broad hills, long ones the peaks.
    """
    width = INLIER * np.hypot(lines.sigma_rad, blur_rad)
    length = lines.length_px * np.radians(1.0) / width
    chunk = max(1, 1_000_000 // max(len(lines), 1))
    parts = [directions[i : i + chunk] for i in range(0, len(directions), chunk)]
    return np.concatenate([np.maximum(0, 1 - (misfit_rad(lines, p) / width) ** 2) @ length for p in parts])


def _deviation(values: Float[Array, "n"]) -> float:
    """Standard deviation of most of them, by the median distance from the median."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _sharpened(lines: Lines, direction: Float[Array, "3"]) -> Float[Array, "3"]:
    """The direction nearby orthogonal to the normals of its lines, reweighted (bisquare) in ever narrower windows."""
    for blur in np.radians([1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.0, 0.0, 0.0]):
        scale = INLIER * np.hypot(lines.sigma_rad, blur)
        share = np.maximum(0, 1 - (misfit_rad(lines, direction[None])[0] / scale) ** 2) ** 2
        reach = 1 - (lines.middle @ direction) ** 2
        weight = lines.length_px * share / (lines.sigma_rad**2 * np.maximum(reach, 1e-4))
        if (share > 0).sum() < 2:
            return direction
        found = np.linalg.eigh(np.einsum("s,si,sj->ij", weight, lines.normal, lines.normal))[1][:, 0]
        direction = found * np.sign(found @ direction)
    return direction


# -- level directions --------------------------------------------------------------------------------------------------


def _horizontal(up: Float[Array, "3"], yaws: Float[Array, "k"]) -> Float[Array, "k 3"]:
    x, y, _ = level_axes(up)
    return np.cos(yaws)[:, None] * x + np.sin(yaws)[:, None] * y


def _peaks(level: Lines, up: Float[Array, "3"], total: float) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
    """Yaws (of lines, from ``level_axes``) that stand out, strongest first, and their shares beyond chance.

    After each, its lines are taken out: what is left of the votes beside it is no direction of its own.
    """
    yaws = np.radians(np.arange(0, 180, YAW_STEP_DEG))
    tried = _horizontal(up, yaws)
    broad = 2 * round(BROAD_DEG / YAW_STEP_DEG / 2) + 1
    looked_at: list[float] = []
    found: list[float] = []
    shares: list[float] = []
    left = level
    for _ in range(2 * MAX_DIRECTIONS):
        votes = _votes(left, tried, BLUR_RAD)
        votes -= ndimage.median_filter(votes, broad, mode="wrap")
        apart = np.array([np.abs(_half_turn(yaws - yaw)) >= np.radians(APART_DEG) for yaw in looked_at]).all(axis=0)
        best = int(np.argmax(np.where(apart, votes, -np.inf)))
        if votes[best] < MIN_PEAK * _deviation(votes):
            break
        looked_at.append(float(yaws[best]))
        mine = _assigned(left, tried[[best]], BLUR_RAD)[0]
        chance = np.median(_assigned(left, tried[::4], BLUR_RAD) @ left.length_px)
        share = float(left.length_px[mine].sum() - chance) / total
        square = (np.abs(_half_turn(np.array(found) - yaws[best] - np.pi / 2)) < np.radians(SQUARE_DEG)).any()
        if share < max(MIN_SHARE, MIN_OF_STRONGEST * max(shares, default=0.0)) * (SQUARE_FACTOR if square else 1.0):
            continue
        found.append(float(yaws[best]))
        shares.append(share)
        left = left.pick(~mine)
    return np.array(found), np.array(shares)


def _half_turn(angle: Float[Array, "n"]) -> Float[Array, "n"]:
    """The angle between lines, in [-pi / 2, pi / 2)."""
    return (angle + np.pi / 2) % np.pi - np.pi / 2


def _assigned(lines: Lines, directions: Float[Array, "k 3"], blur_rad: float = 0.0) -> Bool[Array, "k s"]:
    return misfit_rad(lines, directions) < INLIER * np.hypot(lines.sigma_rad, blur_rad)


def _squared(yaws: Float[Array, "k"]) -> tuple[Float[Array, "k"], Int[Array, "k"]]:
    """Yaws, those at a right angle to a stronger one made exactly so; the row of that stronger one, or their own."""
    yaws, group = yaws.copy(), np.arange(len(yaws))
    for row in range(1, len(yaws)):
        square = np.abs(_half_turn(yaws[row] - yaws[:row] - np.pi / 2)) < np.radians(SQUARE_DEG)
        square &= group[:row] == np.arange(row)
        if square.any():
            group[row] = np.argmax(square)
            yaws[row] = yaws[group[row]] + np.pi / 2
    return yaws, group


def _fitted(
    lines: Lines, found: Upright, yaws: Float[Array, "k"], group: Int[Array, "k"]
) -> tuple[Float[Array, "3"], Float[Array, "k"]]:
    """Up and yaws that fit all their lines together, right angles kept (Gauss-Newton, bisquare weights).

    Yaws come back from the ``level_axes`` of the up that is found. Lines in one direction leave a turn about it open:
    the up that went in holds it.
    """
    own = np.unique(group)
    offsets = yaws - yaws[group]

    def directions(p: Array) -> tuple[Array, Array]:
        """Up, and the level directions: x and y of the axes at the start, tilted along with up."""
        x, y, z = level_axes(found.gravity.up)
        up = z + p[0] * x + p[1] * y
        up /= np.linalg.norm(up)
        turn = _turn_between(z, up)
        turned = p[2 + np.searchsorted(own, group)] + offsets
        return up, (np.cos(turned)[:, None] * x + np.sin(turned)[:, None] * y) @ turn.T

    def misfit(p: Array, rows: Array, of: Array) -> Array:
        up, level = directions(p)
        d = np.vstack([up[None], level])[of]
        across = np.einsum("si,si->s", d, lines.normal[rows])
        along = np.einsum("si,si->s", d, lines.along[rows])
        return np.arctan(across / np.where(np.abs(along) < 1e-9, 1e-9, along)) / lines.sigma_rad[rows]

    p = np.concatenate([[0.0, 0.0], yaws[own]])
    for blur in np.radians([0.5, 0.35, 0.25, 0.15, 0.1, 0.0, 0.0, 0.0]):
        up, level = directions(p)
        off = misfit_rad(lines, np.vstack([up[None], level])) / np.hypot(lines.sigma_rad, blur)
        of = np.argmin(off, axis=0)
        nearest = off[of, np.arange(len(lines))]
        rows = np.nonzero(nearest < INLIER)[0]
        of = of[rows]
        if len(rows) < len(p):
            break
        weight = (1 - (nearest[rows] / INLIER) ** 2) ** 2 * lines.length_px[rows] / lines.length_px.mean()
        here = misfit(p, rows, of)
        steps = 1e-5 * np.eye(len(p))
        slopes = np.stack([(misfit(p + s, rows, of) - misfit(p - s, rows, of)) / 2e-5 for s in steps], axis=1)
        prior = np.diag(np.concatenate([[1.0, 1.0] / np.radians(1.0) ** 2, np.full(len(own), 1e-9)]))
        normal = slopes.T @ (weight[:, None] * slopes) + prior
        p = p - np.linalg.solve(normal, slopes.T @ (weight * here) + prior @ np.r_[p[:2], np.zeros(len(own))])
    up, level = directions(p)
    x, y, _ = level_axes(up)
    return up, np.arctan2(level @ y, level @ x) % np.pi


def _turn_between(a: Float[Array, "3"], b: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The shortest rotation that takes unit ``a`` to unit ``b``, less than half a turn apart (Rodrigues)."""
    v = np.cross(a, b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + a @ b)
