"""Poses from the photos alone: features, pairs, mapping, gate, refinement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.disambiguation import map_apart
from quoin.stages.pose.checks.pure_rotation import from_one_spot, turns
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.initial_cameras import known_focal, one_camera, starting_cameras
from quoin.stages.pose.mapping import better, mean_error_px, refine
from quoin.stages.pose.pairing.matching import find_features, find_pairs, gps_places
from quoin.stages.pose.workspace import Component, Found, Photo, Workshop

Array = np.ndarray

OVERLAP = "take photos that overlap by half or more, of something with texture that stands still"
SHARED_SHARE = 0.7  # of all photos; fewer registered with a shared camera: perhaps it is not one camera
SHARED_ERROR_PX = 1.5  # of a photo 1600 pixels wide, mean over photos; a larger one likewise


def estimate(shop: Workshop, config: PoseConfig, photos: list[Photo]) -> Found:
    """Poses of ``photos``; QuoinError with what to do where nothing can be posed."""
    run = shop.run
    shop.keep_only([inputs_of(photos), config.max_edge_px, config.max_features, config.given, shop.seed])
    cameras, camera_of = starting_cameras(photos)
    unknown = sum(not known_focal(photo) for photo in photos)
    if unknown:
        shop.report.log(
            "pose", f"{unknown} of {len(photos)} photos tell no focal length; it is estimated from the photos"
        )
    n_features, n_masks = find_features(shop, config, photos, cameras, camera_of)
    pairs = find_pairs(shop, config, photos, gps_places(photos))
    if not (pairs[:, 3] > 0).any():
        raise no_overlap(run, n_features)
    if from_one_spot(*turns(shop.database)):
        raise QuoinError(
            "The photos were taken from one spot: the camera turned but did not move, so nothing tells distances",
            where=run.photos,
            do="take photos from many places around the thing, a step or more apart, that overlap by half or more",
        )
    components, mapper = map_apart(shop, config, pairs, [photo["name"] for photo in photos])
    components, mapper = _own_cameras_if_better(shop, config, photos, pairs, components, mapper)
    if not components:
        matching = int((pairs[:, 3] > 0).sum())
        raise QuoinError(
            f"The photos overlap too little for a model: {matching} pairs match, but too weakly or from one place",
            where=run.photos,
            do=OVERLAP,
        )
    doubts = components[0].doubts
    components[0], moved = refine(shop, config, components[0])
    return Found(components, mapper, n_features, pairs, n_masks, moved, doubts)


def inputs_of(photos: list[Photo]) -> list[Any]:
    """What features and matches depend on."""
    return [
        [p["content_hash"], p["group"], p["focal_px"], p["mask_path"], _stamp(p["mask_path"]), p.get("border")]
        for p in photos
    ]


def _stamp(path: str) -> float:
    return Path(path).stat().st_mtime if path and Path(path).exists() else 0.0


def no_overlap(run: Run, n_features: list[int]) -> QuoinError:
    """The error where no pair of photos matches."""
    bare = sum(count < 100 for count in n_features)
    detail = f"; {bare} of {len(n_features)} show hardly any texture" if bare else ""
    return QuoinError(f"No two photos overlap: none show the same things{detail}", where=run.photos, do=OVERLAP)


def _own_cameras_if_better(
    shop: Workshop,
    config: PoseConfig,
    photos: list[Photo],
    pairs: Int[Array, "m 4"],
    components: list[Component],
    mapper: str,
) -> tuple[list[Component], str]:
    """Photos without EXIF are taken to share a camera; where that explains them badly, map with one camera for each."""
    shared, _ = starting_cameras(photos)
    cameras, camera_of = starting_cameras(photos, share=False)
    if len(cameras) == len(shared) or all(one_camera(photo) for photo in photos):
        return components, mapper
    if components:
        width = max(max(c.width, c.height) for c in components[0].gated.model.cameras)
        good = mean_error_px(components[0]) <= SHARED_ERROR_PX * max(1.0, width / 1600)
        if good and components[0].n_photos >= SHARED_SHARE * len(photos):
            return components, mapper
    shop.report.log("pose", "One camera explains the photos badly; trying one for each photo")
    names = [photo["name"] for photo in photos]
    other, other_mapper = map_apart(shop.with_own_cameras(cameras, camera_of), config, pairs, names)
    return (other, other_mapper) if better(other, components) else (components, mapper)
