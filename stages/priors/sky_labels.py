"""Sky labels of all photos of a run: read photos, segment each, write the labels."""

from __future__ import annotations

import numpy as np

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, project
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.sensor_depth import read_sensor_depth
from quoin.pipeline.scene.world import read_world
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.sky_segmentation import SKY_PARAMS, ray_angles_rad, segment_sky, select_reliable_points
from quoin.stages.priors.stereo.views import level_for_edge_px

SKY_TRUSTED_ATTR = "sky_trusted"  # attribute of the priors in the store: whether enough photos show sky to keep it


def label_sky(run: Run, report: Reporter) -> None:
    """Write SKY into the labels of posed photos that have none yet; nothing if gravity is not known well enough."""
    world = read_world(run)
    if world.up is None or world.up_confidence < SKY_PARAMS.min_up_confidence or world.up[2] < 0.9:
        report.log("priors", "no sky labels: the direction of gravity is not known well enough")
        return
    attrs = run.scene.require_group("priors").attrs  # of all photos, before any label was written
    trusted = attrs.get(SKY_TRUSTED_ATTR)
    if trusted is False:
        return
    held_out = read_held_out(run)
    posed = posed_images.without_photos(posed_images.read_posed(run), held_out)
    centers = centers_world(posed.cam_from_world)
    tracks = posed.point_errors_px, posed.track_offsets, posed.track_photo
    reliable_points = posed.points_world[select_reliable_points(centers, posed.points_world, *tracks)]
    unlabeled = [
        i for i in np.setdiff1d(np.arange(len(posed)), held_out).tolist() if priors.read_labels(run, i) is None
    ]
    n_up, sky_maps = 0, []
    with report.task("priors/sky", len(unlabeled), "photos") as advance:
        for done, index in enumerate(unlabeled):
            sky, level, up_deg = _segment_photo(run, posed, reliable_points, index)
            n_up += up_deg > SKY_PARAMS.min_upward_deg
            if sky.any():
                sky_maps.append((index, level, sky.shape, np.packbits(sky)))
            advance(done + 1)
    if trusted is None:
        attrs[SKY_TRUSTED_ATTR] = trusted = len(sky_maps) >= SKY_PARAMS.min_photo_share * n_up
    if not trusted:
        if sky_maps:
            report.log(
                "priors",
                f"no sky labels: only {len(sky_maps)} of {n_up} photos that look up seem to show sky; taken for a wall",
            )
        return
    for index, level, shape, packed in sky_maps:
        sky = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        priors.write_labels(run, index, np.where(sky, labels.SKY, labels.UNKNOWN).astype(np.uint8), level)


def _segment_photo(
    run: Run, posed: posed_images.Posed, reliable_points: np.ndarray, index: int
) -> tuple[np.ndarray, int, float]:
    """Sky pixels of a photo, the pyramid level of that map, and the highest elevation in the photo, degrees."""
    level = level_for_edge_px(posed.sizes[index], SKY_PARAMS.edge_px)
    rgb = posed_images.read_photo(run, index, level)
    h, w = rgb.shape[:2]
    camera, intrinsics = posed.cam_from_world[index], posed.intrinsics[index] / 2**level
    xy, depth = project(camera, intrinsics, reliable_points)
    photo_mask = posed_images.read_mask(run, index)[:: 2**level, :: 2**level][:h, :w] > 127
    azimuth, elevation = ray_angles_rad(camera, intrinsics, (h, w))
    sensor_depth = read_sensor_depth(run, index)
    if sensor_depth is not None:  # pixels with a sensor depth are no sky
        photo_mask &= resize_nearest(sensor_depth.depth, (h, w)) == 0
    sky = segment_sky(rgb, azimuth, elevation, xy[depth > 0], photo_mask)
    return sky, level, float(np.degrees(elevation.max()))


def resize_nearest(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map [h, w] resized to ``shape`` by nearest pixels."""
    row, column = (np.arange(n) * m // n for n, m in zip(shape, values.shape, strict=True))
    return values[row[:, None], column]


def sky_statistics(run: Run, n_photos: int, report: Reporter) -> tuple[int, float]:
    """Number of photos with sky labels, and the mean share of sky in these photos; logs both."""
    stored = [priors.read_labels(run, i) for i in range(n_photos)]
    shares = np.array([0.0 if s is None else (s[0] == labels.SKY).mean() for s in stored])
    n, share = int((shares > 0).sum()), float(shares[shares > 0].mean()) if shares.any() else 0.0
    message = f"sky in {n} of {n_photos} photos" + (f", {share:.0%} of their pixels on average" if n else "")
    report.log("priors", message)
    return n, share
