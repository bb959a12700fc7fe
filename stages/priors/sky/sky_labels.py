"""Sky in all photos of a run: from the store to ``sky.py`` and back as labels."""

from __future__ import annotations

import numpy as np

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, project
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.sensor_depth import read_sensor_depth
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.sky.segmentation import MIN_CONFIDENCE, angles_rad, find_sky, firm_points
from quoin.stages.priors.stereo.views import level_within

EDGE_PX = 1024  # long edge of the labels, at most
UP_DEG = 10.0  # a photo looks up that shows rays so far above the horizon
TRUSTED = "sky_trusted"  # attribute of the priors in the store: whether what looks like sky is taken for it
MIN_PHOTOS = 0.5  # share of the photos that look up in which there must be sky: fewer, and it is a wall or a ceiling


def label_skies(run: Run, report: Reporter) -> None:
    """Write SKY into the labels of posed photos that have none yet; none at all where nobody knows what is up."""
    gravity = run.scene["frame"].attrs.get("gravity") if "frame" in run.scene else None
    if not isinstance(gravity, dict) or gravity["confidence"] < MIN_CONFIDENCE or gravity["up_world"][2] < 0.9:
        report.log("priors", "sky is not looked for: what is up is not known well enough")
        return
    decided = run.scene.require_group("priors").attrs  # of all photos, before any label was written
    trusted = decided.get(TRUSTED)
    if trusted is False:
        return
    held_out = read_held_out(run)
    posed = posed_images.hide(posed_images.read_posed(run), held_out)
    centres = centers_world(posed.cam_from_world)
    tracks = posed.point_errors_px, posed.track_offsets, posed.track_photo
    firm = posed.points_world[firm_points(centres, posed.points_world, *tracks)]
    todo = [i for i in np.setdiff1d(np.arange(len(posed)), held_out).tolist() if priors.read_labels(run, i) is None]
    n_up, found = 0, []
    with report.task("priors/sky", len(todo), "photos") as advance:
        for done, index in enumerate(todo):
            sky, level, up_deg = _sky_of(run, posed, firm, index)
            n_up += up_deg > UP_DEG
            if sky.any():
                found.append((index, level, sky.shape, np.packbits(sky)))
            advance(done + 1)
    if trusted is None:
        decided[TRUSTED] = trusted = len(found) >= MIN_PHOTOS * n_up
    if not trusted:
        if found:
            report.log("priors", f"what looks like sky, in {len(found)} of {n_up} photos that look up, is not trusted")
        return
    for index, level, shape, packed in found:
        sky = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        priors.write_labels(run, index, np.where(sky, labels.SKY, labels.UNKNOWN).astype(np.uint8), level)


def _sky_of(run: Run, posed: posed_images.Posed, firm: np.ndarray, index: int) -> tuple[np.ndarray, int, float]:
    """Sky of a photo, the pyramid level that it was found at, and how far up the photo looks, in degrees."""
    level = level_within(posed.sizes[index], EDGE_PX)
    rgb = posed_images.read_photo(run, index, level)
    h, w = rgb.shape[:2]
    camera, intrinsics = posed.cam_from_world[index], posed.intrinsics[index] / 2**level
    xy, depth = project(camera, intrinsics, firm)
    use = posed_images.read_mask(run, index)[:: 2**level, :: 2**level][:h, :w] > 127
    azimuth, elevation = angles_rad(camera, intrinsics, (h, w))
    measured = read_sensor_depth(run, index)
    if measured is not None:  # what has a depth is no sky
        use &= nearest(measured.depth, (h, w)) == 0
    sky = find_sky(rgb, azimuth, elevation, xy[depth > 0], use)
    return sky, level, float(np.degrees(elevation.max()))


def nearest(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at another resolution."""
    row, column = (np.arange(n) * m // n for n, m in zip(shape, values.shape, strict=True))
    return values[row[:, None], column]


def sky_found(run: Run, n_photos: int, report: Reporter) -> tuple[int, float]:
    """How many photos have sky in their labels, and what share of those photos it is in the mean; told as well."""
    found = [priors.read_labels(run, i) for i in range(n_photos)]
    shares = np.array([0.0 if f is None else (f[0] == labels.SKY).mean() for f in found])
    n, share = int((shares > 0).sum()), float(shares[shares > 0].mean()) if shares.any() else 0.0
    told = f"sky in {n} of {n_photos} photos" + (f", {share:.0%} of each in the mean" if n else "")
    report.log("priors", told)
    return n, share
