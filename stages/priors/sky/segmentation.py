"""Sky, found in a photo by itself: above the horizon, smooth from the upper edge on, and of colours of its own.

Pure functions of one photo at one pyramid level. Whatever speaks against a sky makes the answer: no sky known.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from quoin.pipeline.geometry.cameras import pixel_grid, rays_world
from quoin.stages.priors.sky.gaussian_mixture import Mixture, fit_mixture

Array = np.ndarray

MIN_CONFIDENCE = 0.4  # of gravity: below it, nobody knows where above is
LOW_DEG = -1.0  # elevation down to which sky may reach, for a gravity that is a little off
BELOW_DEG, BELOW = 4.0, 0.03  # what has more than this share so far below the horizon is a wall, or a backdrop
SEED_CONTRAST = 0.012  # standard deviation of gray over 5 × 5 pixels, of 1, that a seed may have at most
NEAR_POINT = 0.012  # of the photo's longer edge: so near a projected point there is a surface
MIN_SEED, MIN_SKY = 0.005, 0.01  # shares of the photo
MIN_OTHER_PX = 100  # that surely are no sky, so that there is a colour of theirs
ROUNDS = 3  # of colours from pixels and pixels from colours
N_SKY, N_OTHER = 3, 6  # Gaussians
MAX_COLOURS = 4000  # pixels that a mixture is fitted to
SURE = 6.0  # bounds what one pixel's colour may say, in log likelihood ratio
DARK, DARKER = 0.08, 0.33  # gray, of 1, and share of the brightest piece's, below which a seed is no sky
BLUE = 0.06  # blue minus red from which on a colour is blue
COLUMNS, UNDER = 64, 0.6  # a piece is no sky where more than this share of it has points above, in so many columns
ROUGH = 3.0  # what texture of twice that of sky says
BIAS = 1.0  # sky's colour must be more likely by this
SMOOTHING, EDGE = 0.008, 0.02  # guided filter: radius as a share of the longer edge, gray difference that it keeps


def angles_rad(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], shape: tuple[int, int]
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Azimuth, from where the camera looks to, and angle above the horizon of rays through pixel centres; z is up."""
    _, directions = rays_world(cam_from_world, intrinsics, pixel_grid(shape[1], shape[0]))
    world = directions.T.reshape(3, *shape)
    ahead = cam_from_world[2, :2] / max(float(np.hypot(*cam_from_world[2, :2])), 1e-9)
    azimuth = np.arctan2(ahead[0] * world[1] - ahead[1] * world[0], ahead[0] * world[0] + ahead[1] * world[1])
    return azimuth, np.arctan2(world[2], np.hypot(world[0], world[1]))


def firm_points(
    centres: Float[Array, "n 3"],
    points: Float[Array, "p 3"],
    errors_px: Float[Array, "p"],
    offsets: Int[Array, "p+1"],
    photo: Int[Array, "t"],
) -> Bool[Array, "p"]:
    """Points that are surely at a finite distance: seen by three photos, exactly, from 2° or more apart.

    Clouds that were matched are not among them. Tracks are in CSR form.
    """
    length = np.diff(offsets)
    towards = centres[photo] - np.repeat(points, length, axis=0)
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12)
    first = np.repeat(towards[offsets[:-1].clip(max=max(len(photo) - 1, 0))], length, axis=0)
    least = np.ones(len(points))
    np.minimum.at(least, np.repeat(np.arange(len(points)), length), (towards * first).sum(axis=1))
    return (length >= 3) & (errors_px < 2.0) & (least < np.cos(np.radians(2.0)))


def find_sky(
    rgb: UInt8[Array, "h w 3"],
    azimuth: Float[Array, "h w"],
    elevation: Float[Array, "h w"],
    firm: Float[Array, "n 2"],
    use: Bool[Array, "h w"] | None = None,
) -> Bool[Array, "h w"]:
    """Which pixels show sky; none where any doubt is left.

    ``firm`` are the pixel positions of surely finite points in front of the camera, matched in this photo or not: sky
    lies behind everything, so that a point of the scene cannot hide behind it. ``use``: the photo's mask.
    """
    colour = rgb.astype(np.float32) / 255.0
    gray = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    h, w = gray.shape
    none = np.zeros((h, w), bool)
    use = np.ones((h, w), bool) if use is None else use
    points = _points_image(firm, (h, w))
    reach = max(2.0, NEAR_POINT * max(h, w))
    away = ndimage.distance_transform_edt(~points) if points.any() else np.full((h, w), np.inf)
    high = elevation > np.radians(LOW_DEG)
    uneven = contrast(gray)
    open_ = use & (uneven < SEED_CONTRAST) & (away > reach)
    region = _like_sky(_joined(open_, top_edge(elevation), round(MIN_SEED * h * w)), colour, gray)
    seed = region & high & ~_grounded(region, elevation)
    seed &= ~_under_points(seed, azimuth, elevation, points)
    if not seed.any():
        return none
    rough = ndimage.minimum_filter(uneven, 5)  # beside an edge, of the smoother side
    usual = float(np.median(uneven[seed]))
    texture = ROUGH * np.clip(rough / (4.0 * usual + 0.004) - 1.0, 0.0, 2.0)
    sky, other = seed, use & ((away < reach) | ~high)
    if other.sum() < MIN_OTHER_PX:
        return none
    flat = colour.reshape(-1, 3)
    kinds, kind = _kinds(rgb)
    for _ in range(ROUNDS):
        ratio = _model(flat, sky).log_density(kinds) - _model(flat, other, N_OTHER).log_density(kinds)
        ratio = ratio.clip(-SURE, SURE)[kind].reshape(h, w).astype(np.float32) - BIAS - texture
        ratio = np.where(away < 2.0, -SURE, ratio)
        even = guided(ratio, gray, max(2, round(SMOOTHING * max(h, w))))
        sky = _joined(use & (even > 0), seed)
        sky &= ~_grounded(sky, elevation) & high
        sky &= ~_under_points(sky, azimuth, elevation, points)
        other = use & ~sky & ((away < reach) | ~high | (even < -1.0))
        if sky.mean() < MIN_SKY or other.sum() < MIN_OTHER_PX:
            return none
    return sky


def _model(colours: Float[Array, "n 3"], which: Bool[Array, "h w"], k: int = N_SKY) -> Mixture:
    at = np.flatnonzero(which)
    return fit_mixture(colours[at[:: max(1, len(at) // MAX_COLOURS)]].astype(float), k)


def _kinds(rgb: UInt8[Array, "h w 3"]) -> tuple[Float[Array, "n 3"], Int[Array, "p"]]:
    """The photo's colours in steps of 4 of 255, each once, and which of them each pixel has."""
    step = (rgb >> 2).astype(np.int32).reshape(-1, 3)
    number, kind = np.unique(step @ np.array([4096, 64, 1], np.int32), return_inverse=True)
    return (np.stack([number >> 12, (number >> 6) & 63, number & 63], axis=1) * 4 + 1.5) / 255.0, kind


def contrast(gray: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Standard deviation of gray over 5 × 5 pixels."""
    mean, square = ndimage.uniform_filter(gray, 5), ndimage.uniform_filter(gray * gray, 5)
    return np.sqrt(np.maximum(square - mean * mean, 0.0))


def top_edge(elevation: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pixels at the photo's edge from which up leads out of the photo, however the camera was held."""
    down, right = np.gradient(elevation)
    size = np.maximum(np.hypot(down, right), 1e-12)
    out = np.zeros(elevation.shape, bool)
    out[0], out[-1] = (down / size)[0] < -0.5, (down / size)[-1] > 0.5
    out[:, 0] |= (right / size)[:, 0] < -0.5
    out[:, -1] |= (right / size)[:, -1] > 0.5
    return out


def guided(values: Float[Array, "h w"], gray: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """Values averaged within windows, not across edges of gray (guided filter: He et al. 2010, eq. 5, 6 and 8)."""
    side = 2 * radius + 1
    mean, mean_gray = ndimage.uniform_filter(values, side), ndimage.uniform_filter(gray, side)
    slope = (ndimage.uniform_filter(values * gray, side) - mean * mean_gray) / (
        np.maximum(ndimage.uniform_filter(gray * gray, side) - mean_gray**2, 0.0) + EDGE**2
    )
    return ndimage.uniform_filter(slope, side) * gray + ndimage.uniform_filter(mean - slope * mean_gray, side)


def _joined(where: Bool[Array, "h w"], seed: Bool[Array, "h w"], least_px: int = 1) -> Bool[Array, "h w"]:
    """Pieces of ``where`` of ``least_px`` or more that touch ``seed``."""
    number, _ = ndimage.label(where)
    size = np.bincount(number.ravel())
    touched = np.zeros(len(size), bool)
    touched[number[seed & where]] = True
    touched &= size >= least_px
    touched[0] = False
    return touched[number]


def _like_sky(
    region: Bool[Array, "h w"], colour: Float[Array, "h w 3"], gray: Float[Array, "h w"]
) -> Bool[Array, "h w"]:
    """Pieces that are brighter than half of all other pixels, or bluer than those and blue; and not nearly black."""
    number, count = ndimage.label(region)
    if count == 0 or region.all():
        return region & False
    blue = colour[:, :, 2] - colour[:, :, 0]
    pieces = np.arange(count + 1)
    light, tint = (np.asarray(ndimage.mean(field, number, pieces)) for field in (gray, blue))
    bright = light >= np.median(gray[~region])
    bluer = (tint > BLUE) & (tint > np.median(blue[~region]) + BLUE / 2)
    light[0] = 0.0
    return ((bright | bluer) & (light >= max(DARK, light.max() * DARKER)))[number]


def _grounded(sky: Bool[Array, "h w"], elevation: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pieces that go on well below the horizon: a wall down to the ground, a sheet of paper."""
    number, count = ndimage.label(sky)
    share = np.asarray(ndimage.mean(elevation < -np.radians(BELOW_DEG), number, np.arange(count + 1)))
    share[0] = 0.0
    return (share > BELOW)[number]


def _under_points(
    sky: Bool[Array, "h w"], azimuth: Float[Array, "h w"], elevation: Float[Array, "h w"], points: Bool[Array, "h w"]
) -> Bool[Array, "h w"]:
    """Pieces of ``sky`` most of which has surely finite points right above it: a wall, with windows or a cornice."""
    low, high = azimuth.min(), azimuth.max()
    column = ((azimuth - low) / max(high - low, 1e-9) * (COLUMNS - 1)).astype(int)
    top = np.full(COLUMNS, -np.inf)
    np.maximum.at(top, column[points], elevation[points])
    under = elevation < top[column]
    number, count = ndimage.label(sky)
    share = np.asarray(ndimage.mean(under, number, np.arange(count + 1)))
    share[0] = 0.0
    return (share > UNDER)[number]


def _points_image(xy: Float[Array, "n 2"], shape: tuple[int, int]) -> Bool[Array, "h w"]:
    column, row = np.floor(xy).astype(int).T
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    out = np.zeros(shape, bool)
    out[row[inside], column[inside]] = True
    return out
