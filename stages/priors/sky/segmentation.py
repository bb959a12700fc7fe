"""Sky, found in a photo by itself: above the horizon, smooth from the upper edge on, and of colours of its own.

Pure functions of one photo at one pyramid level. Whatever speaks against a sky makes the answer: no sky known.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from quoin.pipeline.geometry.cameras import pixel_grid, rays_world
from quoin.pipeline.geometry.rays import normalize
from quoin.pipeline.imaging.filters import local_contrast, rgb_to_gray
from quoin.stages.priors.sky.gaussian_mixture import GaussianMixture, fit_mixture

Array = np.ndarray

MIN_UP_CONFIDENCE = 0.4  # of gravity: below it, nobody knows where above is
MIN_ELEVATION_DEG = -1.0  # elevation down to which sky may reach, for a gravity that is a little off
BELOW_HORIZON_DEG, MAX_BELOW_HORIZON_SHARE = (
    4.0,
    0.03,
)  # what has more than this share so far below the horizon is a wall, or a backdrop
MAX_SEED_CONTRAST = 0.012  # standard deviation of gray over 5 × 5 pixels, of 1, that a seed may have at most
POINT_RADIUS_SHARE = 0.012  # of the photo's longer edge: so near a projected point there is a surface
MIN_SEED_SHARE, MIN_SKY_SHARE = 0.005, 0.01  # shares of the photo
MIN_NON_SKY_PX = 100  # that surely are no sky, so that there is a colour of theirs
SKY_ITERATIONS = 3  # of colours from pixels and pixels from colours
N_SKY_GAUSSIANS, N_NON_SKY_GAUSSIANS = 3, 6  # Gaussians
MAX_MIXTURE_PIXELS = 4000  # pixels that a mixture is fitted to
MAX_LOG_RATIO = 6.0  # bounds what one pixel's colour may say, in log likelihood ratio
MIN_SKY_GRAY, MIN_SKY_BRIGHTNESS_SHARE = (
    0.08,
    0.33,
)  # gray, of 1, and share of the brightest piece's, below which a seed is no sky
MIN_BLUENESS = 0.06  # blue minus red from which on a colour is blue
N_AZIMUTH_BINS, MAX_UNDER_POINTS_SHARE = (
    64,
    0.6,
)  # a piece is no sky where more than this share of it has points above, in so many columns
TEXTURE_PENALTY = 3.0  # what texture of twice that of sky says
SKY_LOG_RATIO_BIAS = 1.0  # sky's colour must be more likely by this
FILTER_RADIUS_SHARE, FILTER_EDGE_GRAY = (
    0.008,
    0.02,
)  # guided filter: radius as a share of the longer edge, gray difference that it keeps


def ray_angles_rad(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], shape: tuple[int, int]
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Azimuth, from where the camera looks to, and angle above the horizon of rays through pixel centres; z is up."""
    _, directions = rays_world(cam_from_world, intrinsics, pixel_grid(shape[1], shape[0]))
    world = directions.T.reshape(3, *shape)
    ahead = cam_from_world[2, :2] / max(float(np.hypot(*cam_from_world[2, :2])), 1e-9)
    azimuth = np.arctan2(ahead[0] * world[1] - ahead[1] * world[0], ahead[0] * world[0] + ahead[1] * world[1])
    return azimuth, np.arctan2(world[2], np.hypot(world[0], world[1]))


def select_reliable_points(
    centers: Float[Array, "n 3"],
    points: Float[Array, "p 3"],
    errors_px: Float[Array, "p"],
    offsets: Int[Array, "p+1"],
    photo: Int[Array, "t"],
) -> Bool[Array, "p"]:
    """Points that are surely at a finite distance: seen by three photos, exactly, from 2° or more apart.

    Clouds that were matched are not among them. Tracks are in CSR form.
    """
    length = np.diff(offsets)
    directions = normalize(centers[photo] - np.repeat(points, length, axis=0))
    first = np.repeat(directions[offsets[:-1].clip(max=max(len(photo) - 1, 0))], length, axis=0)
    min_cosine = np.ones(len(points))
    np.minimum.at(min_cosine, np.repeat(np.arange(len(points)), length), (directions * first).sum(axis=1))
    return (length >= 3) & (errors_px < 2.0) & (min_cosine < np.cos(np.radians(2.0)))


def segment_sky(
    rgb: UInt8[Array, "h w 3"],
    azimuth: Float[Array, "h w"],
    elevation: Float[Array, "h w"],
    reliable_xy: Float[Array, "n 2"],
    photo_mask: Bool[Array, "h w"] | None = None,
) -> Bool[Array, "h w"]:
    """Which pixels show sky; none where any doubt is left.

    ``reliable_xy`` are the pixel positions of surely finite points in front of the camera, matched in this photo or
    not: sky lies behind everything, so that a point of the scene cannot hide behind it. ``photo_mask``: the photo's
    mask.
    """
    color = rgb.astype(np.float32) / 255.0
    gray = rgb_to_gray(color)
    h, w = gray.shape
    none = np.zeros((h, w), bool)
    photo_mask = np.ones((h, w), bool) if photo_mask is None else photo_mask
    points = _rasterize_points(reliable_xy, (h, w))
    reach = max(2.0, POINT_RADIUS_SHARE * max(h, w))
    point_distance_px = ndimage.distance_transform_edt(~points) if points.any() else np.full((h, w), np.inf)
    above_horizon = elevation > np.radians(MIN_ELEVATION_DEG)
    deviation = local_contrast(gray)
    open_ = photo_mask & (deviation < MAX_SEED_CONTRAST) & (point_distance_px > reach)
    region = _sky_colored(
        _components_touching(open_, upward_border(elevation), round(MIN_SEED_SHARE * h * w)), color, gray
    )
    seed = region & above_horizon & ~_reaching_ground(region, elevation)
    seed &= ~_under_points(seed, azimuth, elevation, points)
    if not seed.any():
        return none
    rough = ndimage.minimum_filter(deviation, 5)  # beside an edge, of the smoother side
    typical = float(np.median(deviation[seed]))
    texture = TEXTURE_PENALTY * np.clip(rough / (4.0 * typical + 0.004) - 1.0, 0.0, 2.0)
    sky, non_sky = seed, photo_mask & ((point_distance_px < reach) | ~above_horizon)
    if non_sky.sum() < MIN_NON_SKY_PX:
        return none
    flat = color.reshape(-1, 3)
    palette, palette_index = _quantized_colors(rgb)
    for _ in range(SKY_ITERATIONS):
        ratio = _fit_colors(flat, sky).log_density(palette) - _fit_colors(
            flat, non_sky, N_NON_SKY_GAUSSIANS
        ).log_density(palette)
        ratio = (
            ratio.clip(-MAX_LOG_RATIO, MAX_LOG_RATIO)[palette_index].reshape(h, w).astype(np.float32)
            - SKY_LOG_RATIO_BIAS
            - texture
        )
        ratio = np.where(point_distance_px < 2.0, -MAX_LOG_RATIO, ratio)
        smoothed = guided_filter(ratio, gray, max(2, round(FILTER_RADIUS_SHARE * max(h, w))))
        sky = _components_touching(photo_mask & (smoothed > 0), seed)
        sky &= ~_reaching_ground(sky, elevation) & above_horizon
        sky &= ~_under_points(sky, azimuth, elevation, points)
        non_sky = photo_mask & ~sky & ((point_distance_px < reach) | ~above_horizon | (smoothed < -1.0))
        if sky.mean() < MIN_SKY_SHARE or non_sky.sum() < MIN_NON_SKY_PX:
            return none
    return sky


def _fit_colors(colors: Float[Array, "n 3"], selected: Bool[Array, "h w"], k: int = N_SKY_GAUSSIANS) -> GaussianMixture:
    at = np.flatnonzero(selected)
    return fit_mixture(colors[at[:: max(1, len(at) // MAX_MIXTURE_PIXELS)]].astype(float), k)


def _quantized_colors(rgb: UInt8[Array, "h w 3"]) -> tuple[Float[Array, "n 3"], Int[Array, "p"]]:
    """The photo's colours in steps of 4 of 255, each once, and which of them each pixel has."""
    step = (rgb >> 2).astype(np.int32).reshape(-1, 3)
    number, palette_index = np.unique(step @ np.array([4096, 64, 1], np.int32), return_inverse=True)
    return (np.stack([number >> 12, (number >> 6) & 63, number & 63], axis=1) * 4 + 1.5) / 255.0, palette_index


def upward_border(elevation: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pixels at the photo's edge from which up leads out of the photo, however the camera was held."""
    down, right = np.gradient(elevation)
    size = np.maximum(np.hypot(down, right), 1e-12)
    out = np.zeros(elevation.shape, bool)
    out[0], out[-1] = (down / size)[0] < -0.5, (down / size)[-1] > 0.5
    out[:, 0] |= (right / size)[:, 0] < -0.5
    out[:, -1] |= (right / size)[:, -1] > 0.5
    return out


def guided_filter(values: Float[Array, "h w"], gray: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """Values averaged within windows, not across edges of gray (guided filter: He et al. 2010, eq. 5, 6 and 8)."""
    side = 2 * radius + 1
    mean, mean_gray = ndimage.uniform_filter(values, side), ndimage.uniform_filter(gray, side)
    slope = (ndimage.uniform_filter(values * gray, side) - mean * mean_gray) / (
        np.maximum(ndimage.uniform_filter(gray * gray, side) - mean_gray**2, 0.0) + FILTER_EDGE_GRAY**2
    )
    return ndimage.uniform_filter(slope, side) * gray + ndimage.uniform_filter(mean - slope * mean_gray, side)


def _components_touching(where: Bool[Array, "h w"], seed: Bool[Array, "h w"], min_px: int = 1) -> Bool[Array, "h w"]:
    """Pieces of ``where`` of ``min_px`` or more that touch ``seed``."""
    number, _ = ndimage.label(where)
    size = np.bincount(number.ravel())
    touched = np.zeros(len(size), bool)
    touched[number[seed & where]] = True
    touched &= size >= min_px
    touched[0] = False
    return touched[number]


def _sky_colored(
    region: Bool[Array, "h w"], color: Float[Array, "h w 3"], gray: Float[Array, "h w"]
) -> Bool[Array, "h w"]:
    """Pieces that are brighter than half of all other pixels, or bluer than those and blue; and not nearly black."""
    number, count = ndimage.label(region)
    if count == 0 or region.all():
        return region & False
    blue = color[:, :, 2] - color[:, :, 0]
    pieces = np.arange(count + 1)
    light, tint = (np.asarray(ndimage.mean(field, number, pieces)) for field in (gray, blue))
    bright = light >= np.median(gray[~region])
    bluer = (tint > MIN_BLUENESS) & (tint > np.median(blue[~region]) + MIN_BLUENESS / 2)
    light[0] = 0.0
    return ((bright | bluer) & (light >= max(MIN_SKY_GRAY, light.max() * MIN_SKY_BRIGHTNESS_SHARE)))[number]


def _reaching_ground(sky: Bool[Array, "h w"], elevation: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Pieces that go on well below the horizon: a wall down to the ground, a sheet of paper."""
    number, count = ndimage.label(sky)
    share = np.asarray(ndimage.mean(elevation < -np.radians(BELOW_HORIZON_DEG), number, np.arange(count + 1)))
    share[0] = 0.0
    return (share > MAX_BELOW_HORIZON_SHARE)[number]


def _under_points(
    sky: Bool[Array, "h w"], azimuth: Float[Array, "h w"], elevation: Float[Array, "h w"], points: Bool[Array, "h w"]
) -> Bool[Array, "h w"]:
    """Pieces of ``sky`` most of which has surely finite points right above it: a wall, with windows or a cornice."""
    low, above_horizon = azimuth.min(), azimuth.max()
    column = ((azimuth - low) / max(above_horizon - low, 1e-9) * (N_AZIMUTH_BINS - 1)).astype(int)
    top = np.full(N_AZIMUTH_BINS, -np.inf)
    np.maximum.at(top, column[points], elevation[points])
    is_under = elevation < top[column]
    number, count = ndimage.label(sky)
    share = np.asarray(ndimage.mean(is_under, number, np.arange(count + 1)))
    share[0] = 0.0
    return (share > MAX_UNDER_POINTS_SHARE)[number]


def _rasterize_points(xy: Float[Array, "n 2"], shape: tuple[int, int]) -> Bool[Array, "h w"]:
    column, row = np.floor(xy).astype(int).T
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    out = np.zeros(shape, bool)
    out[row[inside], column[inside]] = True
    return out
