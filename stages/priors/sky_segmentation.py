"""Sky segmentation of one photo: pixels above the horizon, smooth from the upper border on, in colors of their own.

Pure functions of one photo at one pyramid level. In doubt no pixel is sky: missed sky costs less than wrong sky.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from quoin.pipeline.geometry.cameras import normalize, pixel_grid, rays_world
from quoin.pipeline.imaging.filters import local_contrast, rgb_to_gray

Array = np.ndarray

MIN_VARIANCE = 2e-4  # of each Gaussian, colors in [0, 1]: below lie JPEG artifacts and gradients
EM_ITERATIONS = 8


@dataclass(frozen=True)
class SkyParams:
    """Tuned numbers of the sky segmentation; found on our own photo collections unless a source is named."""

    min_up_confidence: float = 0.4  # confidence of gravity, 0..1, below which no sky is looked for
    edge_px: int = 1024  # longest edge of the labels at most
    min_upward_deg: float = 10.0  # a photo with rays this far above the horizon looks up
    # share of the photos that look up; if fewer of them have sky, it is a wall or a ceiling, and none is kept
    min_photo_share: float = 0.5
    min_elevation_deg: float = -1.0  # lowest elevation of sky; below 0, as gravity may be a little off
    below_horizon_deg: float = 4.0  # depression from which a pixel is well below the horizon
    max_below_horizon_share: float = 0.03  # of a component's pixels; with more it is a wall or a backdrop
    max_seed_contrast: float = 0.012  # of a seed pixel: standard deviation of gray in [0, 1] over 5 × 5 pixels
    point_radius_share: float = 0.012  # of the longest edge: closer to a projected point there is a surface
    min_seed_share: float = 0.005  # of the photo's pixels, in one seed component
    min_sky_share: float = 0.01  # of the photo's pixels, that are sky
    min_non_sky_px: int = 100  # pixels surely not sky, to learn their colors from
    n_iterations: int = 3  # of fitting colors to pixels and choosing pixels by colors
    n_sky_gaussians: int = 3  # in the color mixture of sky
    n_non_sky_gaussians: int = 6  # in the color mixture of everything else
    max_mixture_pixels: int = 4000  # that a mixture is fitted to
    max_log_ratio: float = 6.0  # bound of one pixel's log likelihood ratio
    min_gray: float = 0.08  # mean gray in [0, 1] of a seed component
    min_brightness_share: float = 0.33  # of the brightest component's gray, that a seed component has
    min_blueness: float = 0.06  # blue minus red, in [0, 1], of a blue color
    n_azimuth_bins: int = 64  # columns in which points above a component are looked for
    max_under_points_share: float = 0.6  # of a component below points of the scene; with more it is no sky
    texture_penalty: float = 3.0  # log likelihood lost where texture is twice that of sky
    log_ratio_bias: float = 1.0  # log likelihood ratio above which a color is sky's
    filter_radius_share: float = 0.008  # radius of the guided filter, of the longest edge
    filter_edge_gray: float = 0.02  # gray difference in [0, 1] that the guided filter keeps (√ε of He et al. 2010)
    min_track_length: int = 3  # photos that see a reliable point
    max_point_error_px: float = 2.0  # reprojection error of a reliable point
    min_point_angle_deg: float = 2.0  # triangulation angle of a reliable point: matched clouds have less


SKY_PARAMS = SkyParams()


def ray_angles_rad(
    cam_from_world: Float[Array, "3 4"], intrinsics: Float[Array, "4"], shape: tuple[int, int]
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Azimuth (0 where the camera looks) and elevation of the rays through pixel centers, radians; z is up."""
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
    """Which points surely lie at a finite distance: long tracks, small errors, a wide triangulation angle.

    This excludes clouds that were matched. ``offsets`` and ``photo`` are the tracks in CSR form.
    """
    length = np.diff(offsets)
    directions = normalize(centers[photo] - np.repeat(points, length, axis=0))
    first = np.repeat(directions[offsets[:-1].clip(max=max(len(photo) - 1, 0))], length, axis=0)
    min_cosine = np.ones(len(points))
    np.minimum.at(min_cosine, np.repeat(np.arange(len(points)), length), (directions * first).sum(axis=1))
    return (
        (length >= SKY_PARAMS.min_track_length)
        & (errors_px < SKY_PARAMS.max_point_error_px)
        & (min_cosine < np.cos(np.radians(SKY_PARAMS.min_point_angle_deg)))
    )


def segment_sky(
    rgb: UInt8[Array, "h w 3"],
    azimuth: Float[Array, "h w"],
    elevation: Float[Array, "h w"],
    reliable_xy: Float[Array, "n 2"],
    photo_mask: Bool[Array, "h w"] | None = None,
) -> Bool[Array, "h w"]:
    """Which pixels show sky; none in case of doubt.

    Args:
        reliable_xy: pixels of the points of ``select_reliable_points`` in front of the camera, whether matched in this
            photo or not. Sky is behind everything, so no such point can be hidden by it.
        photo_mask: pixels of the photo that are used, all if None.
    """
    color = rgb.astype(np.float32) / 255.0
    gray = rgb_to_gray(color)
    h, w = gray.shape
    no_sky = np.zeros((h, w), bool)
    photo_mask = np.ones((h, w), bool) if photo_mask is None else photo_mask
    points = _rasterize_points(reliable_xy, (h, w))
    reach = max(2.0, SKY_PARAMS.point_radius_share * max(h, w))
    point_distance_px = ndimage.distance_transform_edt(~points) if points.any() else np.full((h, w), np.inf)
    above_horizon = elevation > np.radians(SKY_PARAMS.min_elevation_deg)
    deviation = local_contrast(gray)
    smooth = photo_mask & (deviation < SKY_PARAMS.max_seed_contrast) & (point_distance_px > reach)
    region = _sky_colored(
        _components_touching(smooth, upward_border(elevation), round(SKY_PARAMS.min_seed_share * h * w)), color, gray
    )
    seed = region & above_horizon & ~_reaching_ground(region, elevation)
    seed &= ~_under_points(seed, azimuth, elevation, points)
    if not seed.any():
        return no_sky
    rough = ndimage.minimum_filter(deviation, 5)  # beside an edge that of the smoother side
    typical = float(np.median(deviation[seed]))
    texture = SKY_PARAMS.texture_penalty * np.clip(rough / (4.0 * typical + 0.004) - 1.0, 0.0, 2.0)
    sky, non_sky = seed, photo_mask & ((point_distance_px < reach) | ~above_horizon)
    if non_sky.sum() < SKY_PARAMS.min_non_sky_px:
        return no_sky
    flat = color.reshape(-1, 3)
    palette, palette_index = _quantized_colors(rgb)
    for _ in range(SKY_PARAMS.n_iterations):
        ratio = _fit_colors(flat, sky, SKY_PARAMS.n_sky_gaussians).log_density(palette) - _fit_colors(
            flat, non_sky, SKY_PARAMS.n_non_sky_gaussians
        ).log_density(palette)
        ratio = (
            ratio.clip(-SKY_PARAMS.max_log_ratio, SKY_PARAMS.max_log_ratio)[palette_index]
            .reshape(h, w)
            .astype(np.float32)
            - SKY_PARAMS.log_ratio_bias
            - texture
        )
        ratio = np.where(point_distance_px < 2.0, -SKY_PARAMS.max_log_ratio, ratio)
        smoothed = guided_filter(ratio, gray, max(2, round(SKY_PARAMS.filter_radius_share * max(h, w))))
        sky = _components_touching(photo_mask & (smoothed > 0), seed)
        sky &= ~_reaching_ground(sky, elevation) & above_horizon
        sky &= ~_under_points(sky, azimuth, elevation, points)
        non_sky = photo_mask & ~sky & ((point_distance_px < reach) | ~above_horizon | (smoothed < -1.0))
        if sky.mean() < SKY_PARAMS.min_sky_share or non_sky.sum() < SKY_PARAMS.min_non_sky_px:
            return no_sky
    return sky


def _fit_colors(colors: Float[Array, "n 3"], selected: Bool[Array, "h w"], k: int) -> GaussianMixture:
    at = np.flatnonzero(selected)
    return fit_mixture(colors[at[:: max(1, len(at) // SKY_PARAMS.max_mixture_pixels)]].astype(float), k)


def _quantized_colors(rgb: UInt8[Array, "h w 3"]) -> tuple[Float[Array, "n 3"], Int[Array, "p"]]:
    """Distinct colors of the photo in steps of 4 of 255, and the index of each pixel's color among them."""
    step = (rgb >> 2).astype(np.int32).reshape(-1, 3)
    number, palette_index = np.unique(step @ np.array([4096, 64, 1], np.int32), return_inverse=True)
    return (np.stack([number >> 12, (number >> 6) & 63, number & 63], axis=1) * 4 + 1.5) / 255.0, palette_index


def upward_border(elevation: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Border pixels from which the upward direction leaves the photo, at any roll of the camera."""
    down, right = np.gradient(elevation)
    size = np.maximum(np.hypot(down, right), 1e-12)
    out = np.zeros(elevation.shape, bool)
    out[0], out[-1] = (down / size)[0] < -0.5, (down / size)[-1] > 0.5
    out[:, 0] |= (right / size)[:, 0] < -0.5
    out[:, -1] |= (right / size)[:, -1] > 0.5
    return out


def guided_filter(values: Float[Array, "h w"], gray: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """``values`` smoothed, but not across edges of ``gray`` (guided filter of He et al. 2010, eq. 5, 6 and 8)."""
    side = 2 * radius + 1
    mean, mean_gray = ndimage.uniform_filter(values, side), ndimage.uniform_filter(gray, side)
    slope = (ndimage.uniform_filter(values * gray, side) - mean * mean_gray) / (
        np.maximum(ndimage.uniform_filter(gray * gray, side) - mean_gray**2, 0.0) + SKY_PARAMS.filter_edge_gray**2
    )
    return ndimage.uniform_filter(slope, side) * gray + ndimage.uniform_filter(mean - slope * mean_gray, side)


def _components_touching(where: Bool[Array, "h w"], seed: Bool[Array, "h w"], min_px: int = 1) -> Bool[Array, "h w"]:
    """Connected components of ``where`` that touch ``seed`` and have at least ``min_px`` pixels."""
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
    """Components brighter than the median of all other pixels, or blue and bluer than it; none nearly black."""
    number, count = ndimage.label(region)
    if count == 0 or region.all():
        return region & False
    blue = color[:, :, 2] - color[:, :, 0]
    pieces = np.arange(count + 1)
    light, tint = (np.asarray(ndimage.mean(field, number, pieces)) for field in (gray, blue))
    bright = light >= np.median(gray[~region])
    bluer = (tint > SKY_PARAMS.min_blueness) & (tint > np.median(blue[~region]) + SKY_PARAMS.min_blueness / 2)
    light[0] = 0.0
    return ((bright | bluer) & (light >= max(SKY_PARAMS.min_gray, light.max() * SKY_PARAMS.min_brightness_share)))[
        number
    ]


def _reaching_ground(sky: Bool[Array, "h w"], elevation: Float[Array, "h w"]) -> Bool[Array, "h w"]:
    """Components that reach well below the horizon, such as a wall down to the ground or a sheet of paper."""
    number, count = ndimage.label(sky)
    share = np.asarray(
        ndimage.mean(elevation < -np.radians(SKY_PARAMS.below_horizon_deg), number, np.arange(count + 1))
    )
    share[0] = 0.0
    return (share > SKY_PARAMS.max_below_horizon_share)[number]


def _under_points(
    sky: Bool[Array, "h w"], azimuth: Float[Array, "h w"], elevation: Float[Array, "h w"], points: Bool[Array, "h w"]
) -> Bool[Array, "h w"]:
    """Components of ``sky`` with points of the scene above most of them: a wall with windows or a cornice."""
    low, above_horizon = azimuth.min(), azimuth.max()
    column = ((azimuth - low) / max(above_horizon - low, 1e-9) * (SKY_PARAMS.n_azimuth_bins - 1)).astype(int)
    top = np.full(SKY_PARAMS.n_azimuth_bins, -np.inf)
    np.maximum.at(top, column[points], elevation[points])
    is_under = elevation < top[column]
    number, count = ndimage.label(sky)
    share = np.asarray(ndimage.mean(is_under, number, np.arange(count + 1)))
    share[0] = 0.0
    return (share > SKY_PARAMS.max_under_points_share)[number]


def _rasterize_points(xy: Float[Array, "n 2"], shape: tuple[int, int]) -> Bool[Array, "h w"]:
    """Image [h, w] that is true in the pixels that hold a point."""
    column, row = np.floor(xy).astype(int).T
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    out = np.zeros(shape, bool)
    out[row[inside], column[inside]] = True
    return out


# -- colors, as Gaussian mixtures --------------------------------------------------------------------------------------


class GaussianMixture(NamedTuple):
    """``weights`` [k], ``mean`` [k, 3], and ``whitening`` [k, 3, 3]: inverse Cholesky factors of the covariances."""

    weights: Array
    mean: Array
    whitening: Array

    def log_density(self, colors: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Log density of each color: ln Σₖ weightₖ N(color; meanₖ, covarianceₖ)."""
        return np.logaddexp.reduce(self._log_components(colors), axis=0)

    def _log_components(self, colors: Float[Array, "n 3"]) -> Float[Array, "k n"]:
        offsets = np.einsum("kij,knj->kni", self.whitening, colors[None] - self.mean[:, None])
        level = np.log(self.weights) + np.log(np.linalg.det(self.whitening)) - 1.5 * np.log(2 * np.pi)
        return level[:, None] - 0.5 * (offsets**2).sum(axis=2)


def fit_mixture(colors: Float[Array, "n 3"], k: int) -> GaussianMixture:
    """Mixture of ``k`` Gaussians, by EM from ``k`` equal groups of the colors in the order of their brightness."""
    order = np.argsort(colors.sum(axis=1), kind="stable")
    part = np.zeros(len(colors), int)
    part[order] = np.arange(len(colors)) * k // len(colors)
    responsibilities = (part == np.arange(k)[:, None]).astype(float)
    for _ in range(EM_ITERATIONS):
        total = responsibilities.sum(axis=1) + 1e-6
        mean = responsibilities @ colors / total[:, None]
        offsets = colors[None] - mean[:, None]
        covariance = np.einsum("kn,kni,knj->kij", responsibilities, offsets, offsets) / total[
            :, None, None
        ] + MIN_VARIANCE * np.eye(3)
        mixture = GaussianMixture(total / total.sum(), mean, np.linalg.inv(np.linalg.cholesky(covariance)))
        parts = mixture._log_components(colors)
        responsibilities = np.exp(parts - np.logaddexp.reduce(parts, axis=0))
    return mixture
